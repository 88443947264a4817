"""A node as a whole: it starts, and it stops."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    AlreadyStarted,
    ConfigError,
    NotStarted,
    ShuttingDown,
)
from stellar_overlay.identity import PUBNET_PASSPHRASE
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Hello, MessageType
from tests.builders import get_tx_set, make_node
from tests.node.world import PORT, WorldTestCase, ip


@implementer(IStreamServerEndpoint)
class SlowEndpoint:
    """Opens its port when told to."""

    def __init__(self, opens: IStreamServerEndpoint) -> None:
        self.waiting: Deferred[None] = Deferred()
        self._opens = opens

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.waiting.addCallback(lambda _: self._opens.listen(protocolFactory))


class StartTests(WorldTestCase):
    """Listen, then dial; once."""

    def manager(self, listen: Any = None, **settings: Any) -> OverlayManager:
        node = OverlayManager(
            OverlayConfig(allow_private=True, **settings),
            make_node(1),
            reactor=self.world.clock,
            listen=listen,
            connect=self.world.network.client(ip(1)),
        )
        self.world.nodes.append(node)
        return node

    def test_hello_announces_the_port_really_bound(self) -> None:
        """Not the configured one, and not the one that the local node had in mind."""
        local_node = make_node(1, port=999)
        node = OverlayManager(
            OverlayConfig(allow_private=True, listen_port=888),
            local_node,
            reactor=self.world.clock,
            listen=self.world.network.server(ip(1), 4000),
        )
        self.world.nodes.append(node)
        self.world.result(node.start())
        acceptors = self.world.answer(9)
        self.world.nodes[0]._dialer._connect = self.world.network.client(ip(1))
        self.world.result(node.connect(ip(9)))
        hello = Hello.decode(acceptors[0].of_type(MessageType.HELLO)[0].body)
        self.assertEqual((node.peer_port, hello.listening_port), (4000, 4000))
        self.assertEqual(local_node.listening_port, 999)

    def test_without_a_listener_the_configured_port_is_announced(self) -> None:
        """A node that only dials says where it would listen."""
        node = self.manager(listen_enabled=False, listen_port=888)
        self.world.result(node.start())
        acceptors = self.world.answer(9)
        self.world.result(node.connect(ip(9)))
        hello = Hello.decode(acceptors[0].of_type(MessageType.HELLO)[0].body)
        self.assertEqual((node.peer_port, hello.listening_port), (None, 888))

    def test_standalone(self) -> None:
        """RUN_STANDALONE: no port is opened and nobody is dialled."""
        node = OverlayManager(
            OverlayConfig(run_standalone=True, known_peers=[f"{ip(2)}:{PORT}"]),
            make_node(),
            reactor=self.world.clock,
            connect=self.world.network.client(ip(1)),
        )
        self.world.result(node.start())
        self.world.advance(60)
        self.assertIsNone(node.peer_port)
        self.assertEqual(node.metrics.outbound_attempt.get(), 0)
        self.world.result(node.stop())

    def test_a_second_start_is_refused(self) -> None:
        """While it runs, and after it stopped; the node itself does not mind."""
        node = self.world.node()
        with self.assertRaises(AlreadyStarted):
            self.world.result(node.start())
        self.world.call()
        self.assertEqual(len(node.peer_infos()), 1)
        self.world.result(node.stop())
        with self.assertRaises(AlreadyStarted):
            self.world.result(node.start())

    def test_a_taken_port_is_raised(self) -> None:
        """The caller of start, and who asked to be told, get the endpoint's own error."""
        taken = SlowEndpoint(self.world.network.server(ip(1), PORT))
        node = self.manager(taken, known_peers=[ip(9)])
        acceptors = self.world.answer(9)
        outcomes = [self.world.outcome(node.when_started()), self.world.outcome(node.start())]
        error = CannotListenError("", PORT, OSError("taken"))
        taken.waiting.errback(error)
        outcomes.append(self.world.outcome(node.when_started()))
        self.world.advance(10)
        self.assertEqual(outcomes, [[error]] * 3)
        self.assertEqual(acceptors, [])
        with self.assertRaises(NotStarted):
            self.world.result(node.connect(ip(9)))

    def test_stopped_while_it_starts(self) -> None:
        """A port that opens after the stop is closed again, and start says why."""
        slow = SlowEndpoint(self.world.network.server(ip(1), PORT))
        node = self.manager(slow)
        starting = self.world.outcome(node.start())
        self.world.result(node.stop())
        slow.waiting.callback(None)
        self.world.settle()
        self.assertIsInstance(starting[0], ShuttingDown)
        with self.assertRaises(RefusedError):
            self.world.call()

    def test_nothing_works_before_the_start(self) -> None:
        """Dialling is refused; listing is not."""
        node = self.world.node(is_started=False)
        with self.assertRaises(NotStarted):
            self.world.result(node.connect(ip(2)))
        self.assertEqual(node.peer_infos(), [])
        with self.assertRaises(RefusedError):
            self.world.call()

    def test_as_a_service(self) -> None:
        """In an application, the node starts and stops with it."""
        application = MultiService()
        node = self.world.node(is_started=False)
        node.setServiceParent(application)
        application.startService()
        peer = self.world.call()
        self.assertTrue(node.running)
        self.assertEqual(len(node.peer_infos()), 1)
        self.world.result(application.stopService())
        self.assertEqual(peer.error, (0, b"shutdown"))
        self.assertFalse(node.running)

    def test_configuration_and_node_must_agree_about_the_network(self) -> None:
        """Both passphrases are in the error."""
        with self.assertRaisesRegex(ConfigError, "network_passphrase.*Public Global.*Test SDF"):
            OverlayManager(
                OverlayConfig(network_passphrase=PUBNET_PASSPHRASE),
                make_node(1),
                reactor=self.world.clock,
            )

    def test_configuration_and_node_must_agree_about_versions(self) -> None:
        """What either asks for counts; two different wishes are an error."""
        asked = OverlayConfig(overlay_min_version=39, overlay_version=41)
        node = OverlayManager(asked, make_node(1), reactor=self.world.clock).local_node
        self.assertEqual((node.overlay_min_version, node.overlay_version), (39, 41))
        node = OverlayManager(
            OverlayConfig(), make_node(1, overlay=(40, 41)), reactor=self.world.clock
        ).local_node
        self.assertEqual((node.overlay_min_version, node.overlay_version), (40, 41))
        with self.assertRaisesRegex(ConfigError, r"39\.\.41.*40\.\.41"):
            OverlayManager(asked, make_node(1, overlay=(40, 41)), reactor=self.world.clock)

    def test_a_bad_setting_is_refused(self) -> None:
        """The configuration is checked when it is handed over."""
        config = OverlayConfig()
        config.target_outbound_peers = 0
        with self.assertRaisesRegex(ConfigError, "target_outbound_peers"):
            OverlayManager(config, make_node(1), reactor=self.world.clock)

    def test_later_changes_of_the_configuration_have_no_effect(self) -> None:
        """The manager has its own copy, lists included."""
        config = OverlayConfig(allow_private=True)
        node = OverlayManager(config, make_node(1), reactor=self.world.clock)
        config.known_peers.append(ip(9))
        config.auth_timeout_secs = 77
        self.assertEqual(list(node.config.known_peers), [])
        self.assertEqual(node.config.auth_timeout_secs, 2)

    def test_two_managers_share_nothing(self) -> None:
        """Made from one configuration and one node object, each has its own peers and figures."""
        local_node = make_node(1)
        first = self.world.node(1, local_node=local_node)
        second = self.world.node(2, local_node=local_node)
        seen = self.reasons_of(second)
        peer = self.world.call(1)
        self.world.result(first.stop())
        self.assertTrue(peer.is_closed)
        self.assertEqual((second.peer_infos(), seen), ([], []))
        self.assertEqual(second.metrics.messages_read.get(), 0)
        self.world.call(2)
        self.assertEqual(len(second.peer_infos()), 1)


class StopTests(WorldTestCase):
    """Say goodbye to every peer and be gone within five seconds."""

    def test_everybody_is_told(self) -> None:
        """Authenticated or not, each of fifty peers gets ERR_MISC "shutdown"."""
        node = self.world.node()
        reasons = self.reasons_of(node)
        peers = [self.world.call(number=number) for number in range(10, 60)]
        pending = self.world.call(number=60, is_polite=False)
        self.world.result(node.stop())
        self.assertEqual([peer.error for peer in [*peers, pending]], [(0, b"shutdown")] * 51)
        self.assertEqual(reasons, ["shutdown"] * 51)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_stalled_peers_do_not_hold_it_up(self) -> None:
        """Peers that read nothing, with full transports and without, are cut off in time."""
        node = self.world.node()
        peers = [self.world.call(number=number) for number in range(10, 30)]
        for number, (_, ours) in enumerate(self.world.network.transports):
            if number % 2:
                ours.cork()
        for info in node.peer_infos()[:10]:
            for number in range(1500):
                node.send_to(info.peer_id, get_tx_set(number))
        self.world.settle()
        stopping = self.world.outcome(node.stop())
        self.world.advance(4.5)
        self.assertEqual(stopping, [None])
        self.assertTrue(all(peer.is_closed for peer in peers))
        self.assertEqual([peer.error for peer in peers], [(0, b"shutdown"), None] * 10)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_links_that_are_closing_are_waited_for(self) -> None:
        """A link that was dropped just before is part of the five seconds."""
        node = self.world.node()
        peer = self.world.call()
        self.world.transports()[1].cork()
        self.world.result(node.disconnect(peer.auth.local_node.peer_id))
        stopping = self.world.outcome(node.stop())
        self.world.settle()
        self.assertEqual(stopping, [])
        self.world.advance(5)
        self.assertEqual(stopping, [None])

    def test_nobody_gets_in_any_more(self) -> None:
        """The port is closed at once, while links still say goodbye."""
        node = self.world.node()
        self.world.call()
        self.world.transports()[1].cork()
        stopping = self.world.outcome(node.stop())
        with self.assertRaises(RefusedError):
            self.world.call(number=8)
        self.assertIsNone(node.peer_port)
        with self.assertRaises(NotStarted):
            self.world.result(node.connect(ip(9)))
        self.assertEqual(stopping, [])

    def test_stopping_twice_is_stopping_once(self) -> None:
        """All that wait are told when it is done; later calls return at once."""
        node = self.world.node()
        peer = self.world.call()
        outcomes = [self.world.outcome(node.stop()), self.world.outcome(node.stopService())]
        self.world.settle()
        outcomes.append(self.world.outcome(node.stop()))
        self.assertEqual(outcomes, [[None]] * 3)
        self.assertEqual(len(peer.of_type(MessageType.ERROR_MSG)), 1)

    def test_stopping_what_never_started(self) -> None:
        """It is harmless, and final."""
        node = self.world.node(is_started=False)
        self.world.result(node.stop())
        with self.assertRaises(AlreadyStarted):
            self.world.result(node.start())

    def test_stopping_from_within_an_event(self) -> None:
        """Whatever happens to a link, its listener may stop the node."""
        for kind in ("peer.connecting", "peer.authenticated", "peer.dropped"):
            stopping = self.stop_at(kind)
            peer = self.world.call()
            if peer.auth.is_authenticated:
                peer.send_forged(get_tx_set())
                self.world.settle()
            self.assertEqual(stopping, [[None]], kind)
            self.assertEqual(self.world.clock.getDelayedCalls(), [])
            self.assertTrue(peer.is_closed)

    def stop_at(self, kind: str) -> list[list[Any]]:
        """Start a node that stops at the first event of a kind."""
        node = self.world.node()
        stopping: list[list[Any]] = []

        def stop(event: PeerEvent) -> None:
            if event.kind == kind and not stopping:
                stopping.append(self.world.outcome(node.stop()))

        node.on_peer_event(stop)
        return stopping
