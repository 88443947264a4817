"""What the demo's checks say of good traffic, and of traffic in which one thing is broken."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, ErrorCode
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.demo_checks import Check, check_auth, check_flow_control
from stellar_overlay.tools.demo_traffic import Payments
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.scp import externalize, prepare
from tests.tools.demo_kit import MESSAGES_PER_LINK, Play, every


class PlayTests(SynchronousTestCase):
    def assert_fails(self, check: Check, seen: str, expected: str) -> None:
        """Assert that a check failed, and says what it saw and what it expected, and no more."""
        self.assertFalse(check.ok, check.text)
        self.assertIn(seen, check.text)
        self.assertTrue(check.text.endswith(f"(expected: {expected})"), check.text)


class GoodTests(PlayTests):
    def test_figures(self) -> None:
        """Three nodes, two of them validators, two ledgers and twenty transactions."""
        play = Play(self)
        checks = play.run()
        self.assertEqual([check.text for check in checks.values() if not check.ok], [])
        del checks["survey"]  # test_demo_topology looks at that
        figures = {name: dict(check.figures) for name, check in checks.items()}
        self.assertNotEqual(figures["flood"].pop("duplicates"), 0)
        adverts = figures["pull"].pop("adverts")
        assert isinstance(adverts, int)
        self.assertTrue(40 <= adverts <= 120, adverts)
        for check, name in (("pull", "median_ms"), ("fetch", "median_ms"), ("fetch", "max_ms")):
            milliseconds = figures[check].pop(name)
            assert isinstance(milliseconds, float)
            self.assertTrue(0 < milliseconds < 1000, milliseconds)
        direct = 6 * MESSAGES_PER_LINK
        self.assertEqual(
            figures,
            {
                "flood": {
                    "validators": 2, "statements": 12, "statements_expected": 12, "heard": 24,
                    "heard_expected": 24, "ledgers": 2, "ledgers_expected": 2, "misjudged": 0,
                    "repeated": 0, "strange": 0,
                },
                "pull": {
                    "transactions": 20, "received": 40, "received_expected": 40,
                    "received_again": 0, "unsolicited": 0, "misjudged": 0, "repeated": 0,
                    "strange": 0, "demands": 40, "fulfilled": 40,
                },
                "fetch": {
                    "tx_sets": 2, "fetched": 4, "fetched_expected": 4, "nodes": 3, "kept": 6,
                    "kept_expected": 6, "know_quorum_set": 3,
                },
                "flow-control": {
                    "sent": direct, "received": direct, "least": MESSAGES_PER_LINK, "overruns": 0,
                },
            },
        )  # fmt: skip

    def test_any_size(self) -> None:
        """From two nodes, of which one is a validator, to more than dial each other."""
        for nodes, validators in ((2, 1), (4, 2), (6, 3), (13, 5)):
            with self.subTest(nodes=nodes):
                play = Play(self, nodes=nodes, seconds=1)
                self.assertEqual(len(play.traffic.validators), validators)
                self.assertEqual([one.text for one in play.run().values() if not one.ok], [])

    def test_words(self) -> None:
        """One of a kind is not said to be many."""
        checks = Play(self, nodes=2, seconds=1).run()
        self.assertEqual(
            checks["flood"].text,
            "3 signed SCP statements of 1 synthetic validator reached the other node: 3 of 3; 1 of"
            " 1 ledger followed by all; 0 duplicates from other peers",
        )
        self.assertIn("10 signed transactions reached the other node: 10", checks["pull"].text)
        self.assertIn("1 transaction set, made by one node each", checks["fetch"].text)


class BadFloodTests(PlayTests):
    def test_lost(self) -> None:
        """A statement that does not reach a node is missed, with the node's name."""
        play = Play(self)
        lost = play.nodes[2]
        validators = [validator.overlay for validator in play.traffic.validators]
        sender = next(node for node in validators if node is not lost)
        honest = sender.broadcast

        def broadcast(message: Message) -> int:
            for peer in sender._links.peers.values():
                if peer.peer_id == lost.local_node.peer_id and _is_scp(message):
                    sender._flooding.relay.gate.record_seen(message, peer.peer_id)
            return honest(message)

        sender.broadcast = broadcast  # type: ignore[assignment]
        for node in play.nodes:  # and nobody passes it on
            if node is not sender:
                node._flooding.herder._is_relaying = False  # type: ignore[attr-defined]
        check = play.run()["flood"]
        self.assertFalse(check.ok)
        self.assertIn(f"{lost.local_node.peer_id.short} has ", check.text)
        self.assertLess(int(str(check.figures["heard"])), 24)

    def test_not_broadcast(self) -> None:
        """Where statements get nowhere, no ledger closes either: all of that is said."""
        play = Play(self)
        honest = OverlayManager.broadcast

        def broadcast(node: OverlayManager, message: Message) -> int:
            return 0 if _is_scp(message) else honest(node, message)

        self.patch(OverlayManager, "broadcast", broadcast)
        checks = play.run()
        words = "0 of 2 ledgers followed by all"
        short = [node.local_node.peer_id.short for node in play.nodes]
        has = [play.journal.statements.had_by[number] for number in range(3)]
        lacking = ", ".join(f"{a} has {b}" for a, b in zip(short, has, strict=True) if b < 2)
        self.assert_fails(
            checks["flood"], words, f"12 statements, heard 4 times; of 2 {lacking}, 2 ledgers"
        )
        self.assertFalse(checks["fetch"].ok)
        self.assertTrue(checks["pull"].ok)

    def test_repeated(self) -> None:
        """What a peer is sent twice is counted, and is a fault."""
        play = Play(self)
        honest = Relay.broadcast_own

        def broadcast_own(relay: Relay, message: Message) -> int:
            if _is_scp(message):
                relay.push(message, list(relay._links.values()))
            return honest(relay, message)

        self.patch(Relay, "broadcast_own", broadcast_own)
        self.assert_fails(
            play.run_for("flood"), ", 24 twice over a link;", "none twice over a link"
        )

    def test_strange(self) -> None:
        """A statement that no validator has made is noticed."""
        play = Play(self)
        node = play.nodes[2]
        message = prepare(node.local_node, 1, bytes(32))
        play.network.world.clock.callLater(0.3, node.broadcast, message)
        check = play.run_for("flood")
        self.assert_fails(check, " that nobody had broadcast;", "none but those")

    def test_passed_on(self) -> None:
        """Were direct statements passed on, that would be noticed."""
        play = Play(self)
        to, by, other = play.nodes
        message = externalize(by.local_node, 2**32 + 7, bytes(32))
        play.network.world.clock.callLater(0.3, to.send_to, other.local_node.peer_id, message)
        check = play.run_for("flood")
        self.assert_fails(check, ", 1 that nobody had broadcast;", "none but those")

    def test_lagging(self) -> None:
        """A node that does not follow the ledger is enough to fail."""
        play = Play(self)
        play.network._herders[1] = IgnoringHerder()
        self.assert_fails(play.run_for("flood"), "0 of 2 ledgers followed by all", "2 ledgers")


class BadPullTests(PlayTests):
    def test_pushed(self) -> None:
        """A transaction that was not asked for is unsolicited, although it is the right one."""
        play = Play(self)
        honest = Relay.broadcast

        def broadcast(relay: Relay, message: Message) -> int:
            if _is_scp(message):
                return honest(relay, message)
            now = play.network.world.clock.seconds()
            untold = relay.gate.mark(message.body, relay._links.values(), now)
            relay.push(message, untold)
            return len(untold)

        self.patch(Relay, "broadcast", broadcast)
        check = play.run_for("pull")
        self.assert_fails(check, "40 of 40, byte for byte, ", "none unsolicited")
        self.assertGreaterEqual(int(str(check.figures["unsolicited"])), 40)

    def test_never_demanded(self) -> None:
        """A node that asks for nothing lacks what it has not submitted itself."""
        play = Play(self)
        node = play.nodes[2]
        node._flooding.relay.demands.demand = lambda now: None  # type: ignore[method-assign]
        check = play.run_for("pull")
        name, own = node.local_node.peer_id.short, play.journal.transactions.had_by[2]
        self.assert_fails(check, f": {20 + own} of 40,", f"all of them; of 20 {name} has {own}")

    def test_strange(self) -> None:
        """A transaction that nobody has submitted is noticed."""
        play = Play(self)
        node = play.nodes[1].local_node
        message = Payments(node.network_passphrase, 0, seed=8).make()
        play.network.world.clock.callLater(0.3, play.nodes[1].broadcast, message)
        check = play.run_for("pull")
        self.assert_fails(check, "2 that nobody had broadcast;", "none but those")


class BadFetchTests(PlayTests):
    def test_not_fetched(self) -> None:
        """A node that cannot fetch lacks the transaction sets that it has not made."""
        play = Play(self)
        publishers = {validator.overlay for validator in play.traffic.validators}
        node = next(node for node in play.nodes if node not in publishers)
        fetcher = node._flooding.dispatcher._tx_sets.fetcher
        fetcher.fetch = lambda item_hash, waiter: False  # type: ignore[method-assign]
        check = play.run_for("fetch")
        self.assert_fails(check, ": 2 of 4, by 2 nodes; 4 of 6 kept;", "6 kept, 4 fetched")

    def test_no_quorum_set(self) -> None:
        """Nor may it lack the quorum set that the validators name."""
        play = Play(self)
        publishers = {validator.overlay for validator in play.traffic.validators}
        node = next(node for node in play.nodes if node not in publishers)
        fetcher = node._flooding.dispatcher._quorum_sets.fetcher
        fetcher.fetch = lambda item_hash, waiter: False  # type: ignore[method-assign]
        check = play.run_for("fetch")
        self.assert_fails(check, "2 know the validators' quorum set", "the quorum set everywhere")


class BadFlowControlTests(PlayTests):
    def test_lost(self) -> None:
        """Were direct statements lost, it is said how many arrived."""
        play = Play(self)
        lose = every(10, OverlayManager.send_to, lambda *_: False)
        self.patch(OverlayManager, "send_to", lambda *arguments: lose(*arguments))
        check = play.run_for("flow-control")
        self.assert_fails(check, "1350 of 1500 direct SCP messages arrived", "all of them")


class CheckTests(SynchronousTestCase):
    """What the checks make of figures; nothing is sent."""

    def setUp(self) -> None:
        self.play = Play(self, nodes=2, seconds=1)

    def test_forger(self) -> None:
        """Only ERR_AUTH with core's text will do; anything else is said as it was."""
        for shook_hands, error, is_closed, ending in (
            (False, None, True, "it could not even shake hands"),
            (True, (0, b"shutdown"), True, "it was told 'shutdown', code 0"),
            (True, (3, b"\x1b[2J\xff"), True, "it was told '\\\\x1b[2J\ufffd', code 3"),
            (True, (2, b"unexpected MAC"), True, "it was told 'unexpected MAC', code 2"),
            (True, None, True, "the link was closed without a word"),
            (True, None, False, "the link was still open after 10 s"),
        ):
            with self.subTest(ending=ending):
                forger = ScriptedPeer(LocalNode.testnet())
                forger.auth.state = AuthState.GOT_AUTH if shook_hands else AuthState.CONNECTED
                forger.error, forger.is_closed = error, is_closed
                check = check_auth(self.play.network, forger)
                self.assertFalse(check.ok)
                self.assertFalse(check.figures["forger_refused"])
                self.assertTrue(
                    check.text.endswith(f"not refused with ERR_AUTH: {ending}"), check.text
                )
        forger = ScriptedPeer(LocalNode.testnet())
        forger.error = ErrorCode.ERR_AUTH, b"unexpected MAC"
        self.assertTrue(check_auth(self.play.network, forger).figures["forger_refused"])

    def test_flow_control(self) -> None:
        """All that was sent must arrive, past the first grant each way, and not beyond credit."""
        ways = (0, 1), (1, 0)
        all_of_them, more, overruns = "all of them", "more than 200 each", "0 overruns"
        for sent, received, drops, missed in (
            ((600, 600), (600, 600), 0, []),
            ((201, 201), (201, 201), 0, []),
            ((600, 600), (600, 599), 0, [all_of_them]),
            ((600, 600), (599, 601), 0, [all_of_them]),
            ((200, 200), (200, 200), 0, [more]),
            ((600, 200), (600, 200), 0, [more]),
            ((600, 600), (600, 600), 1, [overruns]),
            ((600, 200), (600, 100), 2, [all_of_them, more, overruns]),
            ((0, 0), (0, 0), 0, [more]),
        ):
            with self.subTest(sent=sent, received=received, overruns=overruns):
                self.play.journal.sent = Counter(dict(zip(ways, sent, strict=True)))
                self.play.journal.received = Counter(dict(zip(ways, received, strict=True)))
                self.play.nodes[0].metrics.drops[DropReason.AT_CAPACITY].set(drops)
                check = check_flow_control(self.play.network, self.play.journal)
                self.assertEqual(check.ok, not missed)
                self.assertIn(f"{sum(received)} of {sum(sent)} direct SCP messages", check.text)
                if missed:
                    self.assertIn(f"(expected: {', '.join(missed)})", check.text)


def _is_scp(message: Message) -> bool:
    return message.type is MessageType.SCP_MESSAGE
