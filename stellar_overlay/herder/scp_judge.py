"""Which SCP envelopes are good: one check after the other, cheap ones first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.herder.envelopes import EnvelopeStore
from stellar_overlay.herder.trust import TransitiveQuorum
from stellar_overlay.herder.window import SlotWindow
from stellar_overlay.interfaces import EnvelopeStatus, SignatureCheck, Verifier
from stellar_overlay.wire.scp import ScpStatement

MAX_SIGNERS_PER_SLOT = 1000
"""Where nobody is trusted more than others (DECISIONS 19)."""
MAX_REMEMBERED_BAD = 4096
"""How many envelopes with a bad signature are known again, so that it is not checked twice."""

Judged = Callable[[EnvelopeStatus], None]


class EnvelopeJudge:
    """Says what each SCP envelope is worth, by the rules of DECISIONS 19.

    :param store: the envelopes that were found good.
    :param trust: whose statements matter; None where everybody's do.
    :param accept: takes each envelope that is good and new; returns what became of it.
    :ivar window: the slots that matter.
    """

    def __init__(
        self,
        store: EnvelopeStore,
        *,
        network_id: bytes,
        own_key: bytes,
        verifier: Verifier,
        trust: TransitiveQuorum | None,
        accept: Callable[[ScpStatement], EnvelopeStatus],
    ) -> None:
        self.window = SlotWindow()
        self._store = store
        self._network_id = network_id
        self._own_key = own_key
        self._verifier = verifier
        self._trust = trust
        self._accept = accept
        self._bad: BoundedDict[bytes, None] = BoundedDict(MAX_REMEMBERED_BAD)
        self._is_stopped = False

    def stop(self) -> None:
        """Find nothing good any more; what is being verified gets its verdict still."""
        self._is_stopped = True

    def judge(self, body: bytes, done: Judged) -> None:
        """Call ``done`` once, at once or when the signature is verified."""
        envelope = ScpStatement(body)
        latest = self._store.latest(envelope)
        verdict = self._judge_unverified(envelope, latest)
        if verdict is not None:
            done(verdict)
            return
        check = SignatureCheck._make(envelope.signature_check(self._network_id))
        self._verifier.verify(check, partial(self._verified, envelope, latest, done))

    def _judge_unverified(
        self, envelope: ScpStatement, latest: ScpStatement | None
    ) -> EnvelopeStatus | None:
        """Return what can be said without looking at the signature.

        :param latest: what the signer has said before.
        """
        node, slot = envelope.node, envelope.slot
        if self._is_stopped:
            return EnvelopeStatus.DISCARDED
        if node == self._own_key:
            return EnvelopeStatus.SKIPPED_SELF
        window = self.window
        if not (window.lowest <= slot <= window.highest or slot == window.checkpoint != 0):
            return EnvelopeStatus.DISCARDED
        # Who has said something about the slot has its place among those who may.
        if (latest is None or self._trust is not None) and not self._matters(node, slot):
            return EnvelopeStatus.DISCARDED
        if latest is not None and not envelope.is_newer_than(latest):
            return EnvelopeStatus.PROCESSED
        if self._bad and _digest(envelope.body) in self._bad:
            return EnvelopeStatus.DISCARDED
        return None

    def _matters(self, node: bytes, slot: int) -> bool:
        if self._trust is not None:
            return node in self._trust.nodes
        return not self._store.is_full_for(node, slot, MAX_SIGNERS_PER_SLOT)

    def _verified(
        self, envelope: ScpStatement, latest: ScpStatement | None, done: Judged, is_good: bool
    ) -> None:
        verdict = None if is_good else EnvelopeStatus.DISCARDED
        if self._is_stopped:
            verdict = EnvelopeStatus.DISCARDED
        elif not is_good:
            self._bad.put(_digest(envelope.body), None)
        elif (
            envelope.slot not in self.window
            or self._store.latest(envelope) is not latest
            or (latest is None and not self._matters(envelope.node, envelope.slot))
        ):
            # Something has happened meanwhile.
            verdict = self._judge_unverified(envelope, self._store.latest(envelope))
        if verdict is not None:
            done(verdict)
            return
        try:
            verdict = self._accept(envelope)
        finally:  # whatever goes wrong, its sender has its credit back
            done(verdict or EnvelopeStatus.PROCESSED)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).digest()
