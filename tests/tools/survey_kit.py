"""A surveyor that behaves as stellar-core's admin HTTP does, with a network behind it."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from stellar_overlay.identity import TESTNET_PASSPHRASE, PeerId
from stellar_overlay.tools.admin_client import AdminNotFound
from stellar_overlay.tools.survey_admin import PEER_NUMBERS

PAGE = 25
BATCH = 10
Edge = tuple[str, str]
"""Who called, and who was called."""


def node_id(name: str) -> str:
    """Return a node id made of a name."""
    return PeerId(hashlib.sha256(name.encode()).digest()).strkey


def star(center: str, count: int) -> set[Edge]:
    """Return the links of a node that so many others have called."""
    return {(node_id(f"{center} {index}"), center) for index in range(count)}


def peer_fields(node: str, other: str, version: str = "v27.0.0") -> dict[str, Any]:
    """Return what a node says of a link: numbers that no other link has."""
    base = int(hashlib.sha256(f"{node}{other}".encode()).hexdigest()[:6], 16)
    numbers = {name: base + index for index, name in enumerate(PEER_NUMBERS)}
    return {"nodeId": other, "version": version, **numbers}


class FakeCore:
    """Answers the paths that a survey uses.

    :param now: the time; whatever is due is done when a question comes.
    :param edges: the true topology.
    :param batch_seconds: from one batch of requests to the next; the first leaves after as long.
    :ivar silent: nodes that never answer; ``bad``: whose answers cannot be read.
    :ivar answer_seconds: how long others take.
    :ivar asked: each node that a request has left for, with its indices.
    :ivar looks: how often the results were asked for.
    :ivar has_still_ledger: whether a node that was asked waits for ever to be asked again.
    :ivar overrides: texts to answer with instead, by path; the last one is repeated.
    """

    def __init__(
        self,
        now: Callable[[], float],
        edges: Iterable[Edge],
        *,
        me: str,
        batch_seconds: float = 15,
        answer_seconds: float = 1,
    ) -> None:
        self.me = me
        self.edges = set(edges)
        self.silent: set[str] = set()
        self.bad: set[str] = set()
        self.answer_seconds: dict[str, float] = {}
        self.versions: dict[str, str] = {}
        self.asked: list[tuple[str, int, int]] = []
        self.overrides: dict[str, list[str | Exception]] = {}
        self.phase = "inactive"
        self.nonce: int | None = None
        self.is_running = False
        self.stops = 0
        self.infos = 0
        self.looks = 0
        self.says_nothing_of_a_queue = True
        self.has_still_ledger = False
        self._now = now
        self._batch_seconds = batch_seconds
        self._usual_answer_seconds = answer_seconds
        self._topology: dict[str, dict[str, Any] | None] = {}
        self._bad: set[str] = set()
        self._queue: deque[str] = deque()
        self._indices: dict[str, tuple[int, int]] = {}
        self._next_batch = 0.0
        self._due: list[tuple[float, str, tuple[int, int]]] = []

    def answer(self, path: str, parameters: dict[str, str]) -> str:
        """Return the text at a path.

        :raises Exception: as ``overrides`` has it.
        """
        self._catch_up()
        scripted = self.overrides.get(path)
        if scripted:
            text = scripted[0] if len(scripted) == 1 else scripted.pop(0)
            if isinstance(text, Exception):
                raise text
            if text:
                return text
        method = getattr(self, f"_do_{path.strip('/')}", None)
        if method is None:
            raise AdminNotFound(path)
        text = method(parameters)
        return text if isinstance(text, str) else json.dumps(text, indent=3)

    def entry(self, node: str, inbound: int = 0, outbound: int = 0, page: int = PAGE) -> Any:
        """Return what a node says of itself, from these peers on."""
        callers = sorted(caller for caller, callee in self.edges if callee == node)
        callees = sorted(callee for caller, callee in self.edges if caller == node)

        def peers(names: list[str]) -> Any:
            said = [
                peer_fields(node, other, self.versions.get(other, "v27.0.0")) for other in names
            ]
            return said or None

        return {
            "addedAuthenticatedPeers": 1,
            "droppedAuthenticatedPeers": 2,
            "inboundPeers": peers(callers[inbound : inbound + page]),
            "isValidator": node < "GM",
            "lostSyncCount": 3,
            "maxInboundPeerCount": 64,
            "maxOutboundPeerCount": 8,
            "numTotalInboundPeers": len(callers),
            "numTotalOutboundPeers": len(callees),
            "outboundPeers": peers(callees[outbound : outbound + page]),
            "p75SCPFirstToSelfLatencyMs": 121,
            "p75SCPSelfToOtherLatencyMs": 112,
        }

    # Time.

    def _catch_up(self) -> None:
        while self.is_running and self._next_batch <= self._now():
            asked = {node for node, *_ in self.asked} if self.has_still_ledger else set()
            for node in [node for node in self._queue if node not in asked][:BATCH]:
                self._queue.remove(node)
                self.asked.append((node, *self._indices[node]))
                delay = self.answer_seconds.get(node, self._usual_answer_seconds)
                self._due.append((self._next_batch + delay, node, self._indices[node]))
            self._next_batch += self._batch_seconds
        due = [one for one in self._due if one[0] <= self._now()]
        self._due = [one for one in self._due if one not in due]
        for _, node, indices in due:
            if not self.is_running or node in self.silent:
                continue
            if node in self.bad:
                self._bad.add(node)
                continue
            page = self.entry(node, *indices)
            known = self._topology.get(node) or {}
            for name in ("inboundPeers", "outboundPeers"):
                page[name] = [*(known.get(name) or []), *(page[name] or [])] or None
            self._topology[node] = page

    # Paths.

    def _do_info(self, _: dict[str, str]) -> object:
        self.infos += 1
        return {"info": {"build": "stellar-core 27.0.0", "network": TESTNET_PASSPHRASE}}

    def _do_scp(self, parameters: dict[str, str]) -> object:
        assert parameters == {"fullkeys": "true", "limit": "0"}
        return {"you": self.me, "scp": None, "queue": None}

    def _do_peers(self, parameters: dict[str, str]) -> object:
        assert parameters == {"fullkeys": "true"}
        callers = [{"id": a, "ver": "v1"} for a, b in sorted(self.edges) if b == self.me]
        callees = [{"id": b, "ver": "v1"} for a, b in sorted(self.edges) if a == self.me]
        links = {"inbound": callers or None, "outbound": callees or None}
        return {"authenticated_peers": links, "pending_peers": {"inbound": None, "outbound": None}}

    def _do_startsurveycollecting(self, parameters: dict[str, str]) -> object:
        if self.phase != "inactive":
            return "Failed to start survey collecting. Another survey is active on the network."
        self.nonce = int(parameters["nonce"])
        self.phase = "collecting"
        return "Requested network to start survey collecting."

    def _do_stopsurveycollecting(self, _: dict[str, str]) -> object:
        if self.phase == "inactive":
            return "Failed to stop survey collecting. No survey is active on the network."
        self.phase = "reporting"
        return "Requested network to stop survey collecting."

    def _do_surveytopologytimesliced(self, parameters: dict[str, str]) -> object:
        assert self.phase == "reporting"
        node = parameters["node"]
        was_running, self.is_running = self.is_running, True
        if not was_running:
            self._topology = {self.me: self.entry(self.me, page=10_000)}
            self._next_batch = self._now() + self._batch_seconds
        if node in self._queue or node == self.me:
            if not self.says_nothing_of_a_queue:
                return {
                    "exception": f"Tried to add node {node} to survey backlog, but it is already "
                    "queued or is the self node"
                }
        else:
            self._bad.discard(node)
            self._topology[node] = None if self._topology.get(node) is None else {}
            self._queue.append(node)
        self._indices[node] = (
            int(parameters["inboundpeerindex"]),
            int(parameters["outboundpeerindex"]),
        )
        return f"Adding node.{'Survey already running!' if was_running else 'Survey started '}"

    def _do_getsurveyresult(self, _: dict[str, str]) -> object:
        self.looks += 1
        answer: dict[str, object] = {
            "backlog": sorted(self._queue) or None,
            "badResponseNodes": sorted(self._bad) or None,
            "surveyInProgress": self.is_running,
        }
        return {**answer, "topology": self._topology} if self._topology else answer

    def _do_stopsurvey(self, _: dict[str, str]) -> object:
        self.is_running = False
        self.stops += 1
        return "survey stopped"


class FakeAdmin:
    """The port of an admin HTTP, over a :class:`FakeCore`."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    async def get(self, path: str, **parameters: str | int) -> str:
        return self._core.answer(path, {name: str(value) for name, value in parameters.items()})
