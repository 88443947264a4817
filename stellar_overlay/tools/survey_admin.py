"""The survey routes of a node's admin HTTP: what is asked, and what the answers may be.

Texts and shapes are stellar-core's (messages.md 5.8 and 7.2; CommandHandler.cpp).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from stellar_overlay.tools.admin_client import Admin, AdminMalformed, AdminNotFound, AdminRefused

STARTED = "Requested network to start survey collecting."
STOPPED = "Requested network to stop survey collecting."
ADDED = "Adding node."
"""What the answer of a node that was put on the list begins with."""

NUMBERS = (
    *("numTotalInboundPeers", "numTotalOutboundPeers"),
    *("maxInboundPeerCount", "maxOutboundPeerCount"),
    *("addedAuthenticatedPeers", "droppedAuthenticatedPeers"),
    *("p75SCPFirstToSelfLatencyMs", "p75SCPSelfToOtherLatencyMs", "lostSyncCount"),
)
NODE_FIELDS = (*NUMBERS, "isValidator")
"""What a node says of itself, in the order of OverlaySurvey.py."""
LISTS = ("inboundPeers", "outboundPeers")
PEER_NUMBERS = (
    *("averageLatencyMs", "secondsConnected"),
    *("messagesRead", "messagesWritten", "bytesRead", "bytesWritten"),
    *("uniqueFloodBytesRecv", "duplicateFloodBytesRecv"),
    *("uniqueFetchBytesRecv", "duplicateFetchBytesRecv"),
    *("uniqueFloodMessageRecv", "duplicateFloodMessageRecv"),
    *("uniqueFetchMessageRecv", "duplicateFetchMessageRecv"),
)
"""What a node says of a link; ``nodeId`` and ``version`` are the peer's."""

_ALREADY_QUEUED = re.compile("already (in the backlog|queued)")
"""In what builds of stellar-core for tests, of now and of old, say; the others say nothing."""
_NODE_ID = re.compile("G[A-Z2-7]{55}")
_NAME = re.compile("[A-Za-z0-9_]{1,64}")
_MAX_NUMBER = 2**64 - 1
_MAX_QUOTED = 100

Fields = dict[str, Any]
"""Of a JSON object."""


@dataclass(frozen=True, kw_only=True)
class Surveyor:
    """The node that does the survey: its id, the version of its software, its network."""

    node: str
    build: str
    network: str


@dataclass(frozen=True, kw_only=True)
class Links:
    """The ids of the nodes that the surveyor is connected to."""

    inbound: tuple[str, ...]
    outbound: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is known of a survey at a moment.

    :ivar is_running: whether the node still asks and listens.
    :ivar topology: by node: what it said, or nothing: it was asked.
    :ivar backlog: nodes that the request has not left for yet.
    :ivar bad: nodes whose answer could not be read.
    """

    is_running: bool
    topology: Mapping[str, Fields]
    backlog: frozenset[str]
    bad: frozenset[str]


class SurveyAdmin:
    """Speaks of surveys with a node.

    Every method raises :exc:`AdminError`: refused, malformed, unreachable.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def surveyor(self) -> Surveyor:
        """Return whom we are talking to."""
        try:
            text = await self._admin.get("/info")
        except AdminNotFound:
            raise AdminMalformed("what answers there is no admin HTTP: it has no /info") from None
        info = _Reader.of("/info", text).inside("info")
        scp = _Reader.of("/scp", await self._admin.get("/scp", fullkeys="true", limit=0))
        return Surveyor(
            node=scp.node_id(scp.content.get("you"), "you"),
            build=info.text("build"),
            network=info.text("network"),
        )

    async def links(self) -> Links:
        """Return whom the node is connected to."""
        text = await self._admin.get("/peers", fullkeys="true")
        peers = _Reader.of("/peers", text).inside("authenticated_peers")
        return Links(inbound=peers.ids_in("inbound"), outbound=peers.ids_in("outbound"))

    async def keep_alive(self) -> None:
        """Ask something, so that no tunnel on the way is closed."""
        await self._admin.get("/info")

    async def start_collecting(self, nonce: int) -> None:
        """Have the network begin to measure."""
        text = await self._admin.get("/startsurveycollecting", nonce=nonce)
        if text.strip() != STARTED:
            _refuse("the survey was not started", text)

    async def stop_collecting(self) -> bool:
        """Have the network stop measuring; True."""
        text = await self._admin.get("/stopsurveycollecting")
        if text.strip() != STOPPED:
            _refuse("the survey was not stopped", text)
        return True

    async def request(self, node: str, inbound_index: int, outbound_index: int) -> bool:
        """Have a node asked for its peers from these on; True, also when it is on the list."""
        text = await self._admin.get(
            "/surveytopologytimesliced",
            node=node,
            inboundpeerindex=inbound_index,
            outboundpeerindex=outbound_index,
        )
        if not text.startswith(ADDED) and not _ALREADY_QUEUED.search(_exception_in(text) or ""):
            _refuse(f"{node} was not asked", text)
        return True

    async def results(self) -> Answer:
        """Return what came in so far."""
        path = "/getsurveyresult"
        return _answer(_Reader.of(path, await self._admin.get(path)))

    async def stop_survey(self) -> None:
        """Have the node ask nobody any more."""
        await self._admin.get("/stopsurvey")


def _answer(reader: _Reader) -> Answer:
    topology = reader.content.get("topology")
    if topology is not None and not isinstance(topology, dict):
        reader.complain("topology", "a JSON object")
    for node, entry in (topology or {}).items():
        reader.node_id(node, f"topology.{node!r:.60}")
        if entry is not None:
            _check_entry(reader, f"topology.{node}", entry)
    return Answer(
        is_running=reader.content.get("surveyInProgress") is True,
        topology={node: entry or {} for node, entry in (topology or {}).items()},
        backlog=frozenset(reader.ids("backlog")),
        bad=frozenset(reader.ids("badResponseNodes")),
    )


def _check_entry(reader: _Reader, where: str, entry: object) -> None:
    """Check what is said of a node."""
    if not isinstance(entry, dict):
        reader.complain(where, "a JSON object or null")
    for name in NUMBERS:
        reader.check_number(f"{where}.{name}", entry.get(name, 0))
    if not isinstance(entry.get("isValidator", False), bool):
        reader.complain(f"{where}.isValidator", "true or false")
    for name in LISTS:
        peers = entry.get(name) or []
        if not isinstance(peers, list):
            reader.complain(f"{where}.{name}", "a list or null")
        for index, peer in enumerate(peers):
            _check_peer(reader, f"{where}.{name}[{index}]", peer)


def _check_peer(reader: _Reader, where: str, peer: object) -> None:
    """Check what is said of a link; what else may be said one day is something simple."""
    if not isinstance(peer, dict):
        reader.complain(where, "a JSON object")
    reader.node_id(peer.get("nodeId"), f"{where}.nodeId")
    if not isinstance(peer.get("version"), str):
        reader.complain(f"{where}.version", "a text")
    for name, value in peer.items():
        if not _NAME.fullmatch(name):
            reader.complain(f"{where}.{name!r:.60}", "called like that")
        if name in PEER_NUMBERS:
            reader.check_number(f"{where}.{name}", value)
        elif not isinstance(value, str | int | float):
            reader.complain(f"{where}.{name}", "a text or a number")


class _Reader:
    """A JSON object that a node answered with, and what is wrong with it.

    Every method raises :exc:`AdminMalformed` when something is.
    """

    def __init__(self, path: str, content: Fields) -> None:
        self.content = content
        self._path = path

    @classmethod
    def of(cls, path: str, text: str) -> _Reader:
        """Return a reader of the answer to ``path``.

        :raises AdminRefused: when it is an error.
        """
        try:
            content = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            content = None
        if _exception_in(text) is not None:
            _refuse(f"{path} was refused", text)
        if not isinstance(content, dict):
            raise AdminMalformed(f"the answer to {path} is no JSON object: {text!r:.{_MAX_QUOTED}}")
        return cls(path, content)

    def inside(self, name: str) -> _Reader:
        """Return a reader of an object in it."""
        content = self.content.get(name)
        if not isinstance(content, dict):
            self.complain(name, "a JSON object")
        return _Reader(self._path, content)

    def text(self, name: str) -> str:
        """Return a text in it."""
        value = self.content.get(name)
        if not isinstance(value, str):
            self.complain(name, "a text")
        return value

    def ids(self, name: str) -> tuple[str, ...]:
        """Return a list of ids in it; null is an empty one."""
        return tuple(self.node_id(one, name) for one in self._list(name))

    def ids_in(self, name: str) -> tuple[str, ...]:
        """Return the ids of a list of objects in it."""
        entries = self._list(name)
        ids = (one.get("id") if isinstance(one, dict) else None for one in entries)
        return tuple(self.node_id(one, f"{name}.id") for one in ids)

    def node_id(self, value: object, where: str) -> str:
        """Return an id."""
        if not isinstance(value, str) or not _NODE_ID.fullmatch(value):
            self.complain(where, "a node id (G…) in full")
        return value

    def check_number(self, where: str, value: object) -> None:
        """Refuse what is not a whole number of 64 bits."""
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not (is_whole and 0 <= value <= _MAX_NUMBER):  # type: ignore[operator]
            self.complain(where, "a whole number")

    def complain(self, where: str, rule: str) -> NoReturn:
        """Say what is wrong."""
        raise AdminMalformed(f"the answer to {self._path} makes no sense: {where} is not {rule}")

    def _list(self, name: str) -> list[Any]:
        value = self.content.get(name)
        if value is not None and not isinstance(value, list):
            self.complain(name, "a list or null")
        return value or []


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _exception_in(text: str) -> str | None:
    """Return what an error says; stellar-core does not escape it, so that it may be no JSON."""
    match = re.fullmatch(r'\s*\{\s*"(?:exception|error)"\s*:\s*"(.*)"\s*\}\s*', text, re.DOTALL)
    return match and match[1]


def _refuse(what: str, text: str) -> NoReturn:
    """Say why a node does not do something, in its own words.

    :raises AdminMalformed: when these are not the words of a node.
    """
    reason = (_exception_in(text) or text).strip()
    if not reason or reason.startswith(("<", "{")):
        raise AdminMalformed(f"{what}, and the answer makes no sense: {text!r:.{_MAX_QUOTED}}")
    raise AdminRefused(f"{what}: {reason[:_MAX_QUOTED]}")
