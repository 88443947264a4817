"""Surveys of a whole node: its settings, its clock, and what it says of them in its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.config import OverlayConfig, QuorumSet
from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_facts import SurveyConfig
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import ScpLatency
from stellar_overlay.node.surveying import survey_config
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set, quorum_set_hash
from stellar_overlay.wire.scp import nominate
from stellar_overlay.wire.survey_body import (
    SurveyKeys,
    TopologyResponse,
    decode_request,
    decode_response,
    decode_topology,
    encode_collecting,
    encode_request,
    encode_response,
)
from tests.builders import make_node
from tests.node.world import LivelyPeer, WorldTestCase

START = MessageType.TIME_SLICED_SURVEY_START_COLLECTING
STOP = MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING
RESPONSE = MessageType.TIME_SLICED_SURVEY_RESPONSE
INACTIVE, COLLECTING, REPORTING = SurveyPhase
NONCE = 7
SURVEYOR, STRANGER, OTHER = make_node(9), make_node(8), make_node(7)
KEYS = SurveyKeys(b"\x05" * 32)
QUIET: dict[str, Any] = {"run_standalone": True, "surveyor_keys": [SURVEYOR.peer_id]}
"""Dials nobody, and has somebody who may survey it."""


def collecting(kind: MessageType, by: Any = SURVEYOR) -> Message:
    """Return a START or STOP of a network that follows no ledger."""
    return Message(
        encode_collecting(kind, surveyor=by.peer_id.key, nonce=NONCE, ledger_num=0, sign=by.sign)
    )


def request(of: PeerId, key: bytes = KEYS.public) -> Message:
    """Return a REQUEST, likewise."""
    return Message(
        encode_request(
            surveyor=SURVEYOR.peer_id.key,
            surveyed=of.key,
            ledger_num=0,
            encryption_key=key,
            nonce=NONCE,
            inbound_index=0,
            outbound_index=0,
            sign=SURVEYOR.sign,
        )
    )


class ConfigTests(SynchronousTestCase):
    """What the settings mean for surveys."""

    def config(self, **settings: Any) -> SurveyConfig:
        return survey_config(OverlayConfig(**settings).checked(), OTHER.peer_id)

    def test_defaults(self) -> None:
        """Nobody may survey us; core's times; 64 peers in, 8 out."""
        config = self.config()
        self.assertEqual((config.surveyor_keys, config.quorum_nodes), (frozenset(), frozenset()))
        facts = config.facts
        self.assertEqual((facts.collecting_seconds, facts.reporting_seconds), (1800, 10_800))
        self.assertEqual(config.pause_seconds, 15)
        self.assertFalse(facts.is_validator)
        self.assertEqual((facts.max_inbound_peers, facts.max_outbound_peers), (64, 8))

    def test_facts(self) -> None:
        """The outbound limit that is told is the target, as core does (messages.md 5.6)."""
        facts = self.config(
            node_is_validator=True,
            max_inbound_peers=100,
            target_outbound_peers=20,
            max_outbound_peers=30,
        ).facts
        self.assertEqual(
            (facts.is_validator, facts.max_inbound_peers, facts.max_outbound_peers),
            (True, 100, 20),
        )

    def test_times(self) -> None:
        """Both phases last as long as they are made to; the pause is three ledgers."""
        config = self.config(survey_phase_minutes=2, expected_ledger_close_secs=1)
        facts = config.facts
        self.assertEqual((facts.collecting_seconds, facts.reporting_seconds), (120, 120))
        self.assertEqual(config.pause_seconds, 3)

    def test_names(self) -> None:
        """``$self``, and the names that nodes have been given."""
        own, friend = make_node(1), make_node(2)
        config = self.config(
            node_seed=f"{own.secret_seed} self",
            node_names={friend.peer_id.strkey: "friend"},
            surveyor_keys=["$self", "$friend", STRANGER.peer_id],
        )
        self.assertEqual(config.surveyor_keys, {own.peer_id, friend.peer_id, STRANGER.peer_id})

    def test_ourselves(self) -> None:
        """``$self`` needs no name: it is whoever runs, so that nobody else may survey us."""
        self.assertEqual(self.config(surveyor_keys=["$self"]).surveyor_keys, {OTHER.peer_id})
        checked = OverlayConfig(surveyor_keys=["$self"]).checked()
        self.assertEqual(list(checked.checked().surveyor_keys), ["$self"])

    def test_quorum_set(self) -> None:
        """All of its nodes, however deep."""
        nodes = [make_node(number).peer_id for number in (2, 3, 4)]
        inner = QuorumSet(1, (nodes[1].strkey,), (QuorumSet(1, (nodes[2].strkey,)),))
        config = self.config(quorum_set=QuorumSet(2, (nodes[0].strkey,), (inner,)))
        self.assertEqual(config.quorum_nodes, {node.key for node in nodes})
        self.assertEqual(config.surveyor_keys, frozenset())


class PermissionTests(WorldTestCase):
    """DECISIONS.md 18, on whole nodes."""

    QUORUM = QuorumSet(1, (SURVEYOR.peer_id.strkey,))

    def permitted(self, node: Any) -> list[bool]:
        """Return who may survey a node: two that are known, and itself."""
        own = node.local_node.peer_id
        return [
            node.survey.surveyor_permitted(one) for one in (SURVEYOR.peer_id, STRANGER.peer_id, own)
        ]

    def test_nobody(self) -> None:
        """A node with neither keys nor a quorum set answers and relays nobody's survey."""
        for number, is_observing in ((1, True), (2, False)):
            node = self.world.node(number, is_observing=is_observing, run_standalone=True)
            peer, other = self.world.call(number), self.world.call(number, number=8)
            for message in (
                collecting(START),
                collecting(STOP),
                request(node.local_node.peer_id),
                request(OTHER.peer_id),
            ):
                peer.send(message)
            self.world.settle()
            self.assertEqual(self.permitted(node), [False, False, True])
            refused = node.metrics.survey_refusals[SurveyRefusal.NOT_PERMITTED]
            self.assertEqual(refused.get(), 4)
            self.assertIs(node.survey.phase, INACTIVE)
            self.assertFalse(peer.is_closed)
            told = [each.type for each in (*peer.received, *other.received)]
            self.assertFalse({START, STOP, RESPONSE, request(OTHER.peer_id).type} & set(told))

    def test_the_configured_quorum_set(self) -> None:
        """Counts for either brain."""
        for number, is_observing in ((1, True), (2, False)):
            node = self.world.node(
                number, is_observing=is_observing, run_standalone=True, quorum_set=self.QUORUM
            )
            self.assertEqual(self.permitted(node), [True, False, True])

    def test_keys_come_first(self) -> None:
        """Then the quorum set does not matter."""
        node = self.world.node(
            is_observing=True,
            run_standalone=True,
            quorum_set=self.QUORUM,
            surveyor_keys=[STRANGER.peer_id],
        )
        self.assertEqual(self.permitted(node), [False, True, True])

    def test_transitively(self) -> None:
        """Whom a trusted node trusts may not survey us (DECISIONS 18)."""
        node = self.world.node(is_observing=True, run_standalone=True, quorum_set=self.QUORUM)
        theirs = encode_quorum_set(FlatQuorumSet(1, (STRANGER.peer_id.key,)))
        peer = self.world.call()
        self.assertEqual(self.permitted(node), [True, False, True])
        peer.send(nominate(SURVEYOR, 5, [b"v"], quorum_set_hash=quorum_set_hash(theirs.body)))
        self.world.settle()
        peer.send(theirs)
        self.world.settle()
        assert isinstance(node.herder, ObserverHerder)
        self.assertIn(STRANGER.peer_id.key, node.herder.quorum_nodes())
        self.assertEqual(self.permitted(node), [True, False, True])


class PhaseTests(WorldTestCase):
    """Phases end by themselves: nobody calls but the clock."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node(**QUIET)
        self.survey = self.node.survey

    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds, step=3)

    def test_half_an_hour_and_three_hours(self) -> None:
        """It is looked every three seconds, and only while there is a survey."""
        idle = len(self.world.clock.getDelayedCalls())
        self.survey.start_collecting(NONCE)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), idle + 1)
        self.pass_time(1799)
        self.assertIs(self.survey.phase, COLLECTING)
        self.pass_time(5)
        self.assertIs(self.survey.phase, REPORTING)
        self.pass_time(10_796)
        self.assertIs(self.survey.phase, REPORTING)
        self.pass_time(10)
        self.assertIs(self.survey.phase, INACTIVE)
        self.pass_time(3)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), idle)

    def test_as_configured(self) -> None:
        """ARTIFICIALLY_SET_SURVEY_PHASE_DURATION_FOR_TESTING, in minutes, for both."""
        survey = self.world.node(2, survey_phase_minutes=1, **QUIET).survey
        survey.start_collecting(NONCE)
        phases = []
        for _ in range(3):
            phases.append(survey.phase)
            self.pass_time(65)
        self.assertEqual([*phases, survey.phase], [COLLECTING, REPORTING, INACTIVE, INACTIVE])

    def test_a_second_survey(self) -> None:
        """The clock is looked at again."""
        self.survey.start_collecting(NONCE)
        self.pass_time(1810)
        self.pass_time(10_810)
        self.survey.start_collecting(NONCE + 1)
        self.pass_time(1810)
        self.assertEqual((self.survey.phase, self.survey.nonce), (REPORTING, NONCE + 1))

    def test_started_before_the_node(self) -> None:
        """Time counts once the node runs."""
        node = self.world.node(2, is_started=False, **QUIET)
        node.survey.start_collecting(NONCE)
        self.world.result(node.start())
        self.pass_time(1810)
        self.assertIs(node.survey.phase, REPORTING)

    def test_stopping(self) -> None:
        """Ends the survey, the run and every timer, and nobody is watched any more."""
        peer = self.world.call()
        self.survey.start_collecting(NONCE)
        (link,) = self.node._links.peers.values()
        clocks = link.connection.session.clocks
        self.assertIsNotNone(clocks.on_round_trip)
        self.survey.stop_collecting()
        self.assertIsNone(clocks.on_round_trip)
        for number in range(10, 25):
            self.survey.request(make_node(number).peer_id)
        self.assertTrue(self.survey.is_reporting)
        self.world.result(self.node.stop())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.assertEqual((self.survey.phase, self.survey.is_reporting), (INACTIVE, False))
        self.assertTrue(peer.is_closed)

    def test_stopping_while_it_collects(self) -> None:
        """Likewise."""
        self.world.call()
        self.survey.start_collecting(NONCE)
        (link,) = self.node._links.peers.values()
        self.world.result(self.node.stop())
        self.assertIsNone(link.connection.session.clocks.on_round_trip)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class LogTests(WorldTestCase):
    """What an operator reads."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node(**QUIET)
        self.own = self.node.local_node.peer_id
        self.peer = self.world.call(kind=LivelyPeer)

    def said(self, act: Callable[[], object]) -> list[tuple[LogLevel, str]]:
        """Return level and text of what is logged of surveys meanwhile."""
        with capturedLogs() as events:
            act()
            self.world.settle()
        found: list[Any] = list(events)
        return [
            (event["log_level"], formatEvent(event))
            for event in found
            if "Survey " in formatEvent(event)
        ]

    def hear(self, *messages: Message) -> list[tuple[LogLevel, str]]:
        """Let the surveyor say something; return what is logged of it."""

        def say() -> None:
            for message in messages:
                self.peer.send(message)

        return self.said(say)

    def test_phases(self) -> None:
        """Each is news, with the survey's number and its surveyor."""
        whose = f"Survey 7 of {SURVEYOR.peer_id}"
        self.assertEqual(
            self.hear(collecting(START), collecting(STOP)),
            [
                (LogLevel.info, f"{whose}: collecting"),
                (LogLevel.info, f"{whose}: reporting"),
            ],
        )
        over = self.said(lambda: self.world.advance(10_810, step=3))
        self.assertEqual(over, [(LogLevel.info, f"{whose}: inactive")])

    def test_answers(self) -> None:
        """Are no news, unless they fail."""
        whose = f"Survey 7 of {SURVEYOR.peer_id}"
        self.hear(collecting(START), collecting(STOP))
        self.assertEqual(
            self.hear(request(self.own)), [(LogLevel.debug, f"{whose}: {self.own} has answered")]
        )
        node = self.world.node(2, **QUIET)
        self.peer = self.world.call(2)
        self.hear(collecting(START), collecting(STOP))
        ((level, text),) = self.hear(request(node.local_node.peer_id, key=bytes(32)))
        self.assertEqual(level, LogLevel.warn)
        self.assertEqual(
            text, f"{whose}, {node.local_node.peer_id}: nothing can be encrypted for its key"
        )

    def test_our_own_run(self) -> None:
        """Who has answered, and whose answer could not be read."""
        survey = self.node.survey
        self.said(lambda: survey.start_collecting(NONCE))
        self.said(survey.stop_collecting)
        asked: list[Message] = []
        for node in (OTHER, STRANGER):
            survey.request(node.peer_id)
            self.world.settle()
            asked.append(self.peer.of_type(MessageType.TIME_SLICED_SURVEY_REQUEST)[-1])
        bad = encode_response(decode_request(asked[1].body), b"garbage", STRANGER.sign)
        self.assertEqual(
            self.hear(Message(bad)),
            [
                (
                    LogLevel.warn,
                    f"Survey 7 of {self.own}, {STRANGER.peer_id}: it cannot be decrypted or read",
                )
            ],
        )

    def test_refusals_are_no_news(self) -> None:
        """Anybody can send those; they are counted, and a dropped link says why."""
        strangers = self.hear(collecting(START, STRANGER), collecting(STOP, STRANGER))
        self.assertEqual(strangers, [])
        forged = bytearray(collecting(START).body)
        forged[20] ^= 1
        with capturedLogs() as events:
            self.peer.send(Message(forged))
            self.world.settle()
        found: list[Any] = list(events)
        (text,) = (formatEvent(event) for event in found)
        self.assertIn(
            "dropped by us: Survey has invalid signature "
            f"(survey 7, said to be signed by {SURVEYOR.peer_id})",
            text,
        )
        self.assertEqual(self.peer.error, (0, b"Survey has invalid signature"))
        self.assertEqual(self.node.metrics.drops[DropReason.BAD_SURVEY_SIGNATURE].get(), 1)


class WiringTests(WorldTestCase):
    """What is counted where it happens reaches the report."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node(**QUIET)
        self.peer = self.world.call(kind=LivelyPeer)

    def report(self, of: ScriptedPeer | None = None) -> TopologyResponse:
        """Stop the survey; return what the node answers."""
        peer = of or self.peer
        peer.send(collecting(STOP))
        peer.send(request(self.node.local_node.peer_id))
        self.world.settle()
        (answer,) = peer.of_type(RESPONSE)
        return decode_topology(KEYS.open(decode_response(answer.body).encrypted_body))

    def test_links(self) -> None:
        """Who comes and goes; only who was there all the time is reported on."""
        leaving = self.world.call(number=20)
        self.peer.send(collecting(START))
        self.world.settle()
        self.world.call(number=21)
        assert leaving.transport is not None
        leaving.transport.loseConnection()
        self.world.settle()
        report = self.report()
        node = report.node
        self.assertEqual((node.added_authenticated_peers, node.dropped_authenticated_peers), (1, 1))
        self.assertEqual([peer.node for peer in report.inbound], [SURVEYOR.peer_id.key])
        self.assertEqual((report.outbound, node.total_inbound_peers), ((), 1))

    def test_round_trips(self) -> None:
        """Of the pings while it collects."""
        for end in self.world.transports():
            end.latency = 0.0625
        self.peer.send(collecting(START))
        self.world.advance(21, step=0.03125)
        for end in self.world.transports():
            end.latency = 0.0
        (peer,) = self.report().inbound
        self.assertEqual(peer.average_latency_ms, 125)
        self.assertEqual(peer.seconds_connected, 21)
        self.assertEqual(peer.version_string, SURVEYOR.version_string.encode())

    def test_what_a_link_carried(self) -> None:
        """From START on, STOP included; START itself was read before the count began."""
        for _ in range(5):
            self.peer.send(collecting(START, STRANGER))
        self.world.settle()
        self.peer.send(collecting(START))
        self.world.settle()
        for _ in range(3):
            self.peer.send(collecting(STOP, STRANGER))
        self.world.settle()
        (peer,) = self.report().inbound
        counters = peer.counters
        self.assertEqual(
            (counters.unique_flood_messages_recv, counters.duplicate_flood_messages_recv), (2, 2)
        )
        self.assertEqual(counters.unique_flood_bytes_recv, 2 * 116)
        self.assertGreaterEqual(counters.messages_read, 4)
        self.assertEqual(counters.unique_fetch_messages_recv, 0)

    def test_consensus(self) -> None:
        """What the herder tells the overlay it uses."""
        self.peer.send(collecting(START))
        self.world.settle()
        relay = self.node._flooding.relay
        relay.note_scp_latency(ScpLatency.FIRST_TO_SELF, 0.5)
        relay.note_scp_latency(ScpLatency.SELF_TO_OTHER, 0.75)
        node = self.report().node
        self.assertEqual(
            (node.p75_scp_first_to_self_latency_ms, node.p75_scp_self_to_other_latency_ms),
            (500, 750),
        )

    def test_figures(self) -> None:
        """Each has a name among those of the node."""
        self.peer.send(collecting(START))
        self.world.settle()
        self.report()
        self.peer.send(collecting(STOP))
        self.world.settle()
        figures = self.node.metrics.snapshot()
        self.assertEqual(
            {
                name: figure
                for name, figure in figures.items()
                if name.startswith("survey") and figure
            },
            {
                "survey_started": 1,
                "survey_stopped": 1,
                "survey_answers": 1,
                "survey_signature_checks": 2,
                "survey_refused.REPEATED": 1,
            },
        )
