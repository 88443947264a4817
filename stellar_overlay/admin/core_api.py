"""Stellar-core's commands: its paths, parameters, shapes and texts (messages.md 7.2)."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime

from stellar_overlay.admin.core_info import info
from stellar_overlay.admin.core_log import log_levels, sets_level
from stellar_overlay.admin.core_peers import PeerCommands
from stellar_overlay.admin.core_quorum import Quorum
from stellar_overlay.admin.medida import Medida
from stellar_overlay.admin.named import node_named
from stellar_overlay.admin.prometheus import PrometheusApi
from stellar_overlay.admin.query import BadQuery
from stellar_overlay.admin.route import Answer, Ask, Route, Routes
from stellar_overlay.admin.styled import Json, Rendered, medida_json, plain, rendered, styled
from stellar_overlay.error import InvalidKey, SurveyError
from stellar_overlay.gossip.survey_results import topology_json
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import PeerInfo
from stellar_overlay.wire.scp import ScpStatement
from stellar_overlay.wire.survey_body import TopologyResponse

NO_PING_MS = 24 * 60 * 60 * 1000
"""The latency of a peer that has answered no ping yet (core Peer.cpp)."""
DEFAULT_SLOTS = 2
MAX_SLOTS = 12
"""Of how many slots ``/scp`` tells at most: as many as core remembers unless told otherwise."""
INBOUND, OUTBOUND = "inbound", "outbound"


class CoreApi:
    """Answers core's commands about one node.

    :param medida: what the node counts, by core's names.
    """

    def __init__(self, overlay: OverlayManager, medida: Medida) -> None:
        self._overlay = overlay
        self._medida = medida
        self._wall_clock = overlay.local_node.wall_clock
        self._started_at = self._wall_clock()
        self._reports: dict[int, tuple[TopologyResponse, Rendered]] = {}

    def routes(self) -> Routes:
        """Return the table of core's paths; a node that talks to nobody has fewer of them."""
        text = PrometheusApi(self._overlay)
        table = {
            "info": Route(self._info, is_offered_alone=True),
            "metrics": Route(text.scrape_or(self._metrics), is_offered_alone=True),
            "prometheus": Route(text.scrape, is_offered_alone=True),
            "clearmetrics": Route(self._clear_metrics, is_changing=True, is_offered_alone=True),
            "self-check": Route(self._self_check, is_offered_alone=True),
            "ll": Route(log_levels, changes=sets_level, is_offered_alone=True),
            "peers": Route(self._peers),
            "scp": Route(self._scp),
            "quorum": Route(self._quorum),
            **PeerCommands(self._overlay).routes(),
            "startsurveycollecting": Route(self._start_survey, is_changing=True),
            "stopsurveycollecting": Route(self._stop_survey_collecting, is_changing=True),
            "surveytopologytimesliced": Route(self._survey_node, is_changing=True),
            "getsurveyresult": Route(self._survey_result),
            "stopsurvey": Route(self._stop_survey, is_changing=True),
        }
        is_alone = self._overlay.config.run_standalone
        return {
            name: route for name, route in table.items() if route.is_offered_alone or not is_alone
        }

    # Where the node stands.

    def _info(self, ask: Ask) -> Answer:
        return Answer(styled(info(self._overlay, self._started_at)))

    def _metrics(self, ask: Ask) -> Answer:
        now = datetime.fromtimestamp(int(self._wall_clock()), UTC)
        report: Json = {
            "ts": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "uname": platform.node(),
            "metrics": self._medida.report(ask.query.get("enable")),
        }
        return Answer(medida_json(report))

    def _clear_metrics(self, ask: Ask) -> Answer:
        domain = ask.query.get("domain") or ""
        self._medida.clear(domain)
        return Answer(f"Cleared {plain(domain)} metrics!")

    def _self_check(self, ask: Ask) -> Answer:
        """Answer nothing, as core does: what it would begin to check is history and ledgers."""
        return Answer("")

    def _peers(self, ask: Ask) -> Answer:
        is_full = ask.query.is_true("fullkeys")
        is_compact = not ask.query.is_false("compact")
        infos = sorted(self._overlay.peer_infos(), key=lambda peer: peer.peer_id)
        pending = self._overlay.pending_peers()
        answer: dict[str, Json] = {
            "authenticated_peers": {
                direction: _filled(
                    {"id": self._name(peer.peer_id, is_full)} | peer_json(peer, is_compact)
                    for peer in infos
                    if peer.direction == direction
                )
                for direction in (INBOUND, OUTBOUND)
            },
            "pending_peers": {
                direction: _filled(
                    str(peer.address)
                    for peer in pending
                    if peer.direction == direction and peer.address is not None
                )
                for direction in (INBOUND, OUTBOUND)
            },
        }
        return Answer(styled(answer))

    def _scp(self, ask: Ask) -> Answer:
        limit = ask.query.uint("limit", DEFAULT_SLOTS, bits=64)
        is_full = ask.query.is_true("fullkeys")
        return Answer(
            styled(
                {
                    "you": self._name(self._overlay.local_node.peer_id, is_full),
                    "scp": self._slots(limit, is_full) or None,
                    "queue": None,
                }
            )
        )

    def _quorum(self, ask: Ask) -> Answer:
        """Tell how a node stands, or ourselves."""
        text = ask.query.get("node")
        node = node_named(self._overlay, text) if text else self._overlay.local_node.peer_id
        if node is None:
            raise BadQuery("unknown name")
        quorum = Quorum(
            self._overlay,
            is_compact=ask.query.is_true("compact"),
            is_full=ask.query.is_true("fullkeys"),
        )
        is_transitive = ask.query.is_true("transitive")
        return Answer(styled(quorum.transitive(node) if is_transitive else quorum.report(node)))

    def _slots(self, limit: int, is_full: bool) -> dict[str, Json]:
        """Return what was heard about the newest slots; when that was is not kept, and so 0."""
        herder = self._overlay.herder
        if not isinstance(herder, ObserverHerder):
            return {}
        return {
            str(summary.slot): {
                "statements": _filled(
                    [0, self._statement(ScpStatement(message.body), is_full), True]
                    for message in herder.latest_envelopes(summary.slot)
                ),
                "validated": False,
            }
            for summary in herder.slots()[: min(limit, MAX_SLOTS)]
        }

    def _statement(self, statement: ScpStatement, is_full: bool) -> str:
        name = self._name(PeerId(statement.node), is_full)
        quorum_set = statement.quorum_set_hash.hex()[:6]
        return f"{{ENV@{name} |  i: {statement.slot} | {statement.kind.name} | D: {quorum_set} }}"

    def _name(self, peer_id: PeerId, is_full: bool) -> str:
        return peer_id.strkey if is_full else self._overlay.name_of(peer_id)

    # Surveys.

    def _start_survey(self, ask: Ask) -> Answer:
        nonce = ask.query.required_uint("nonce")
        try:
            self._overlay.survey.start_collecting(nonce)
        except SurveyError:
            return Answer(
                "Failed to start survey collecting. Another survey is active on the network."
            )
        return Answer("Requested network to start survey collecting.")

    def _stop_survey_collecting(self, ask: Ask) -> Answer:
        try:
            self._overlay.survey.stop_collecting()
        except SurveyError:
            return Answer("Failed to stop survey collecting. No survey is active on the network.")
        return Answer("Requested network to stop survey collecting.")

    def _survey_node(self, ask: Ask) -> Answer:
        """Ask one node; the first one begins the run. A node in the queue is a success, too."""
        node = _full_key(ask.query.required("node"))
        inbound_index = ask.query.required_uint("inboundpeerindex")
        outbound_index = ask.query.required_uint("outboundpeerindex")
        was_running = self._overlay.survey.is_reporting
        self._overlay.survey.request(node, inbound_index, outbound_index)
        return Answer(
            "Adding node." + ("Survey already running!" if was_running else "Survey started ")
        )

    def _survey_result(self, ask: Ask) -> Answer:
        """Tell all that is known; what one node said is written once, however often it is told."""
        written, self._reports = self._reports, {}

        def report(response: TopologyResponse) -> Rendered:
            known = written.get(id(response))
            if known is None:
                known = response, rendered(topology_json(response), depth=2)
            self._reports[id(response)] = known
            return known[1]

        return Answer(styled(self._overlay.survey.results().to_json(report)))

    def _stop_survey(self, ask: Ask) -> Answer:
        self._overlay.survey.stop_reporting()
        return Answer("survey stopped")


def peer_json(peer: PeerInfo, is_compact: bool) -> dict[str, Json]:
    """Return what core tells of a peer, but for its id and what we do not measure."""
    credit = peer.flow_control
    compact: dict[str, Json] = {
        "address": str(peer.address),
        "elapsed": int(peer.connected_seconds),
        "latency": NO_PING_MS if peer.latency_ms is None else peer.latency_ms,
        "ver": peer.version_string,
        "olver": peer.overlay_version,
        "flow_control": {
            "local_capacity": {
                "reading": credit.local_total_capacity,
                "flood": credit.local_flood_capacity,
            },
            "local_capacity_bytes": {
                "reading": credit.local_total_bytes_capacity,
                "flood": credit.local_flood_bytes_capacity,
            },
            "peer_capacity": credit.peer_message_capacity,
            "peer_capacity_bytes": credit.peer_bytes_capacity,
        },
    }
    return compact if is_compact else compact | _counts(peer)


def _counts(peer: PeerInfo) -> dict[str, Json]:
    return {
        "message_read": peer.messages_read,
        "message_write": peer.messages_written,
        "byte_read": peer.bytes_read,
        "byte_write": peer.bytes_written,
        "async_read": peer.async_reads,
        "async_write": peer.async_writes,
        "message_drop": peer.messages_dropped,
        "unique_flood_message_recv": peer.unique_flood_messages_recv,
        "duplicate_flood_message_recv": peer.duplicate_flood_messages_recv,
        "unique_fetch_message_recv": peer.unique_fetch_messages_recv,
        "duplicate_fetch_message_recv": peer.duplicate_fetch_messages_recv,
    }


def _filled(elements: Iterable[Json]) -> Json:
    """Return a list, or what jsoncpp has for an empty one."""
    return list(elements) or None


def _full_key(text: str) -> PeerId:
    try:
        return PeerId.from_strkey(text)
    except InvalidKey:
        raise BadQuery("bad public key") from None
