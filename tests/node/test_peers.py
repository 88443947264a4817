"""Who is connected, who is let in, and what watchers are told about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.testing import StringTransportWithDisconnection

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import (
    DropReason,
    PeerNotFound,
    XdrError,
)
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.channel import wrap_unauthenticated
from stellar_overlay.wire.codec import frame
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import WALL_NOW, get_tx_set, make_node
from tests.node.world import NO_SLOTS, PORT, LivelyPeer, WorldTestCase, ip


class StingyPeer(LivelyPeer):
    """Grants nothing."""

    def grant(self, messages: int = 0, size: int = 0) -> None:
        """Keep quiet."""


class PeersTests(WorldTestCase):
    """Who is connected, and what can be done with them."""

    def test_infos(self) -> None:
        """Both ends know each other's id, address, direction and versions."""
        caller = self.world.node(1)
        callee = self.world.node(2, overlay_version=41, overlay_min_version=39)
        self.world.result(caller.connect(ip(2)))
        (of_callee,), (of_caller,) = caller.peer_infos(), callee.peer_infos()
        self.assertEqual(of_callee.peer_id, callee.local_node.peer_id)
        self.assertEqual(of_caller.peer_id, caller.local_node.peer_id)
        self.assertEqual(str(of_callee.address), "10.0.0.2:11625")
        self.assertEqual(str(of_caller.address), "10.0.0.1:11625")
        self.assertEqual((of_callee.direction, of_caller.direction), ("outbound", "inbound"))
        self.assertEqual((of_callee.overlay_min_version, of_callee.overlay_version), (39, 41))
        self.assertEqual((of_caller.overlay_min_version, of_caller.overlay_version), (38, 42))
        self.assertEqual(of_caller.version_string, caller.local_node.version_string)
        self.assertEqual(of_caller.ledger_version, 28)
        self.assertEqual(of_caller.connected_at, WALL_NOW)

    def test_infos_are_in_the_order_of_authentication(self) -> None:
        """Not by id or address."""
        node = self.world.node()
        late = self.world.call(number=5, is_polite=False)
        numbers = [9, 3, 7]
        for number in numbers:
            self.world.call(number=number)
        late.is_polite = True
        late.say_hello()
        self.world.settle()
        expected = [make_node(number).peer_id for number in [*numbers, 5]]
        self.assertEqual([info.peer_id for info in node.peer_infos()], expected)

    def test_disconnect(self) -> None:
        """The peer is told, and no longer listed at once; a second time it is not found."""
        node = self.world.node()
        peer = self.world.call()
        peer_id = peer.auth.local_node.peer_id
        self.world.outcome(node.disconnect(peer_id))
        self.assertEqual(node.peer_infos(), [])
        self.world.settle()
        self.assertEqual(peer.error, (0, b"dropped by user"))
        with self.assertRaisesRegex(PeerNotFound, peer_id.strkey):
            self.world.result(node.disconnect(peer_id))

    def test_send_to(self) -> None:
        """A message of either kind of object reaches the one peer that it is for."""
        node = self.world.node()
        peer, other = self.world.call(number=9), self.world.call(number=8)
        peer_id = peer.auth.local_node.peer_id
        self.assertIs(node.send_to(peer_id, get_tx_set(1)), True)
        self.assertIs(node.send_to(peer_id, get_tx_set(2).decoded), True)
        self.world.settle()
        self.assertEqual(peer.of_type(MessageType.GET_TX_SET), [get_tx_set(1), get_tx_set(2)])
        self.assertEqual(other.of_type(MessageType.GET_TX_SET), [])

    def test_send_to_refuses(self) -> None:
        """An unknown peer, what the protocol itself sends, and what no peer would take."""
        node = self.world.node()
        peer = self.world.call()
        peer_id = peer.auth.local_node.peer_id
        with self.assertRaises(PeerNotFound):
            node.send_to(make_node(8).peer_id, get_tx_set())
        with self.assertRaises(ValueError):
            node.send_to(peer_id, peer.auth.create_auth())
        for body in (get_tx_set().body[:-4], get_tx_set().body + bytes(4), b"\0\0\0\x0b"):
            with self.assertRaises(XdrError):
                node.send_to(peer_id, Message(body))
        self.world.settle()
        self.assertFalse(peer.is_closed)

    def test_no_slot_for_who_comes_in(self) -> None:
        """C1: the attempt is counted, and refused without a byte and without a trace."""
        node = self.world.node()
        node.admission.limits = NO_SLOTS
        caller = self.world.node(2, run_standalone=True)
        outcome = self.world.outcome(caller.connect(ip(1)))
        self.world.advance(5)
        self.assertIsInstance(outcome[0], Exception)
        self.assertEqual(caller.metrics.outbound_attempt.get(), 1)
        self.assertEqual(node.metrics.inbound_attempt.get(), 1)
        self.assertEqual(node.metrics.inbound_establish.get(), 0)
        self.assertEqual(node.metrics.inbound_reject.get(), 1)
        self.assertEqual(self.world.network.transports, [])

    def test_inbound_links_above_the_limit_are_told(self) -> None:
        """Row 38: after AUTH, ERR_LOAD; those that were there before stay."""
        node = self.world.node(target_outbound_peers=1, max_inbound_peers=2)
        peers = [self.world.call(number=number) for number in (7, 8, 9)]
        self.assertEqual([peer.error for peer in peers], [None, None, (4, b"peer rejected")])
        self.assertEqual(len(node.peer_infos()), 2)
        self.assertEqual(peers[2].received[1].type, MessageType.AUTH)
        self.assertEqual(node.metrics.inbound_reject.get(), 1)

    def test_a_node_with_an_alias_is_called_by_it(self) -> None:
        """As core's short text: the alias of the configuration, else the first characters."""
        names = {make_node(8).peer_id.strkey: "eight"}
        self.world.node(node_names=names)
        for number, name in ((8, "eight"), (9, make_node(9).peer_id.short)):
            self.world.call(number=number)
            again = self.world.call(number=number)
            self.assertEqual(again.error, (2, f"already-connected peer: {name}".encode()))

    def test_a_refused_peer_was_never_authenticated(self) -> None:
        """A link that ends within its AUTH is announced as dropped, and as nothing else."""
        node = self.world.node(target_outbound_peers=1, max_inbound_peers=1)
        self.world.call(number=8)
        events: list[str] = []
        node.on_peer_event(lambda event: events.append(event.kind))
        self.world.call(number=9)
        self.assertEqual(events, ["peer.connecting", "peer.dropped"])
        self.assertEqual([info.peer_id for info in node.peer_infos()], [make_node(8).peer_id])


class AddressTests(WorldTestCase):
    """Links that come in some other way."""

    def test_a_peer_without_an_address(self) -> None:
        """Over a pipe there is no IP address to know it by: dropped at HELLO, without a word."""
        node = self.world.node()
        reasons = self.reasons_of(node)
        link = node._links.accept(UNIXAddress("pipe"))
        assert link is not None
        transport = StringTransportWithDisconnection(peerAddress=UNIXAddress("pipe"))
        transport.protocol = link
        link.makeConnection(transport)
        hello = ScriptedPeer(make_node(9)).auth.create_hello()
        link.dataReceived(frame(wrap_unauthenticated(hello.body)))
        self.assertEqual(reasons, ["failed to determine remote address"])
        self.assertEqual(transport.value(), b"")
        self.assertFalse(transport.connected)

    def test_a_public_address_has_sixteen_pending_links(self) -> None:
        """Row 57: more are closed without a byte, counted, and others still get in."""
        node = self.world.node()
        for _ in range(16):
            self.world.call(is_polite=False, from_ip="203.0.113.5")
        with self.assertRaises(RefusedError):
            self.world.call(is_polite=False, from_ip="203.0.113.5")
        self.assertIsNone(self.world.call(from_ip="203.0.113.6").error)
        self.assertEqual(node.metrics.inbound_attempt.get(), 18)
        self.assertEqual(node.metrics.inbound_reject.get(), 1)
        self.assertEqual(node.metrics.drops[DropReason.NO_PENDING_SLOT].get(), 1)

    def test_a_connection_that_comes_after_the_stop(self) -> None:
        """Whatever still makes connections then, none becomes a link."""
        node = self.world.node()
        factory = self.world.network._ports[ip(1), PORT]
        self.world.result(node.stop())
        address = IPv4Address("TCP", ip(9), 40_000)
        self.assertIsNone(factory.buildProtocol(address))
        self.assertIsNone(node._links.dialled(address))
        self.assertEqual(node.metrics.inbound_reject.get(), 1)


class EventTests(WorldTestCase):
    """What watchers are told about peers."""

    def watch(self, node: OverlayManager) -> tuple[list[PeerEvent], Callable[[], None]]:
        events: list[PeerEvent] = []
        return events, node.on_peer_event(events.append)

    def test_the_life_of_a_link(self) -> None:
        """Connecting, authenticated, dropped: each with what is known by then."""
        node = self.world.node()
        events, _ = self.watch(node)
        peer = self.world.call(is_polite=False)
        self.world.advance(1.5)
        peer.is_polite = True
        peer.say_hello()
        self.world.settle()
        peer.send_forged(get_tx_set())
        self.world.settle()
        connecting, authenticated, dropped = events
        self.assertEqual(connecting.kind, "peer.connecting")
        self.assertEqual((connecting.peer_id, connecting.direction), (None, "inbound"))
        self.assertEqual(str(connecting.address), "10.0.0.9:40000")
        self.assertEqual(authenticated.kind, "peer.authenticated")
        self.assertEqual(authenticated.peer_id, make_node(9).peer_id)
        self.assertEqual(str(authenticated.address), "10.0.0.9:11625")
        self.assertEqual((authenticated.overlay_version, authenticated.handshake_ms), (42, 1500))
        self.assertEqual(authenticated.version_string, node.local_node.version_string)
        self.assertEqual(dropped.kind, "peer.dropped")
        self.assertEqual((dropped.by, dropped.reason, dropped.code), ("us", "unexpected MAC", 3))
        self.assertEqual(dropped.peer_id, make_node(9).peer_id)
        times = [WALL_NOW, WALL_NOW + 1.5, WALL_NOW + 1.5]
        self.assertEqual([event.ts for event in events], times)

    def test_who_dropped_whom(self) -> None:
        """By us or by them, with the code of the ERROR_MSG that was sent or received."""
        endings: dict[tuple[str, str | None, int | None], Callable[[Any, Any], object]] = {
            ("us", "dropped by user", 0): lambda node, peer: self.world.result(
                node.disconnect(peer.auth.local_node.peer_id)
            ),
            ("us", "unexpected message type SEND_MORE", None): lambda node, peer: peer.send(
                Message(b"\0\0\0\x10\0\0\0\1")
            ),
            ("them", "ERR_LOAD (full)", 4): lambda node, peer: peer.send(
                Message(b"\0\0\0\0\0\0\0\4\0\0\0\4full")
            ),
            ("them", "UNKNOWN (a*b)", -1): lambda node, peer: peer.send(
                Message(b"\0\0\0\0\xff\xff\xff\xff\0\0\0\3a\nb\0")
            ),
            (
                "them",
                "error reading message header: Connection was closed cleanly.",
                None,
            ): lambda node, peer: peer.transport.loseConnection(),
        }
        for (by, reason, code), end in endings.items():
            node = self.world.node()
            events, _ = self.watch(node)
            end(node, self.world.call())
            self.world.settle()
            last = events[-1]
            self.assertEqual((last.by, last.reason, last.code), (by, reason, code))
            self.world.result(node.stop())

    def test_a_listener_that_fails_harms_nobody(self) -> None:
        """It is logged; other listeners are told, and the link lives on."""
        node = self.world.node()

        def fail(event: PeerEvent) -> None:
            raise ZeroDivisionError

        node.on_peer_event(fail)
        events, _ = self.watch(node)
        peer = self.world.call()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(len(events), 2)
        self.assertFalse(peer.is_closed)
        self.world.result(node.stop())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_listener_that_cancels_itself(self) -> None:
        """Does not keep the one after it from being told."""
        node = self.world.node()
        cancel: list[Callable[[], None]] = []
        cancel.append(node.on_peer_event(lambda event: cancel[0]()))
        events, _ = self.watch(node)
        self.world.call()
        self.assertEqual(
            [event.kind for event in events], ["peer.connecting", "peer.authenticated"]
        )

    def test_a_cancelled_listener_hears_nothing(self) -> None:
        """Cancelling twice is harmless."""
        node = self.world.node()
        events, cancel = self.watch(node)
        cancel()
        cancel()
        self.world.call()
        self.assertEqual(events, [])

    def test_who_never_grants_is_not_counted_as_idle(self) -> None:
        """Row 42: its reason has no meter but its own, as in core (Peer.cpp:449)."""
        node = self.world.node()
        reasons = self.reasons_of(node)
        self.world.call(kind=StingyPeer)
        self.world.advance(59.5)
        self.assertEqual(reasons, [])
        self.world.advance(0.5)
        self.assertEqual(reasons, ["idle timeout (no new flood requests)"])
        self.assertEqual(node.metrics.timeouts_idle.get(), 0)
        self.assertEqual(node.metrics.drops[DropReason.NO_FLOOD_REQUESTS].get(), 1)

    def test_drops_are_counted_by_reason_and_direction(self) -> None:
        """Timeouts and read errors have meters of their own, as in core."""
        node = self.world.node(run_standalone=True)  # no dials but ours
        self.world.answer(8)
        self.world.result(node.connect(PeerAddress(ip(8))))
        silent = self.world.call(is_polite=False)
        stingy = self.world.call(number=7)
        self.assertFalse(stingy.is_closed)
        self.world.transports(0)[1].abortConnection()
        self.world.advance(5)
        self.assertTrue(silent.is_closed)
        figures = node.metrics.snapshot()
        self.assertEqual(figures["outbound_drop"], 1)
        self.assertEqual(figures["inbound_drop"], 1)
        self.assertEqual(figures["timeouts_idle"], 1)
        self.assertEqual(figures["drop.IDLE"], 1)
        self.assertEqual(figures["drop.LOST_AT_HEADER"], 1)
        self.assertEqual(figures["inbound_establish"], 2)
        self.assertEqual(figures["outbound_establish"], 1)
