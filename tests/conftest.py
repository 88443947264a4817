"""What pytest needs to run trial's test cases as trial does."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase


@pytest.fixture(autouse=True)
def _files_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let ``mktemp`` make files in a folder of pytest's; trial itself runs in one of its own."""

    def mktemp(case: SynchronousTestCase) -> str:
        return str(tmp_path_factory.mktemp(case.id().rpartition(".")[2][:40]) / "temp")

    monkeypatch.setattr(SynchronousTestCase, "mktemp", mktemp)
