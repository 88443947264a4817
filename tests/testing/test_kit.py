"""The kit as its users meet it: its public names, and peers that talk without any node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import testing
from stellar_overlay.address import PeerAddress
from stellar_overlay.testing import (
    LoopbackNetwork,
    MemoryNetwork,
    ScriptedPeer,
    clock,
    loopback,
    memory,
    scripted_host,
    scripted_peer,
)
from stellar_overlay.wire.message import MessageType
from tests.builders import advert, get_tx_set, make_node

ROOT = Path(__file__).resolve().parent.parent.parent
SERVER = PeerAddress("10.0.0.1", 11625)


class NamesTests(SynchronousTestCase):
    """``from stellar_overlay.testing import …``."""

    def test_public_names(self) -> None:
        """What the package is for has a short name, and all of it is listed."""
        self.assertIs(LoopbackNetwork, loopback.LoopbackNetwork)
        self.assertIs(MemoryNetwork, memory.MemoryNetwork)
        self.assertIs(ScriptedPeer, scripted_peer.ScriptedPeer)
        self.assertIs(testing.ScriptedHost, scripted_host.ScriptedHost)
        self.assertIs(testing.SimulatedClock, clock.SimulatedClock)
        self.assertEqual(len(testing.__all__), 5)
        self.assertLessEqual(set(testing.__all__), set(dir(testing)))

    def test_other_names(self) -> None:
        """What there is not is an AttributeError that names it."""
        error = self.assertRaises(AttributeError, getattr, testing, "ScriptedPear")
        self.assertIn("'stellar_overlay.testing' has no attribute 'ScriptedPear'", str(error))

    def test_a_peer_needs_no_node(self) -> None:
        """A name is imported when it is first used, and nothing but what it needs."""
        code = (
            "import sys\n"
            "import stellar_overlay.testing as kit\n"
            "assert 'twisted' not in sys.modules\n"
            "kit.ScriptedPeer, kit.MemoryNetwork\n"
            "heavy = 'stellar_overlay.node', 'twisted.internet.reactor'\n"
            "print([name for name in heavy if name in sys.modules])"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        self.assertEqual(printed.strip(), "[]")


class PeersTests(SynchronousTestCase):
    """Two scripted peers on a network in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock, latency=0.5)
        self.callee = ScriptedPeer(make_node(2), we_called_remote=False)
        factory = ScriptedPeer.factory(lambda: self.callee)
        self.port = self.successResultOf(self.network.server("10.0.0.1", 11625).listen(factory))

    def dial(self, *, is_polite: bool = True) -> ScriptedPeer:
        """Return a peer that has dialled the other one."""
        caller = ScriptedPeer(make_node(3), is_polite=is_polite)
        endpoint = self.network.client("10.0.0.3")(SERVER)
        self.successResultOf(endpoint.connect(ScriptedPeer.factory(lambda: caller)))
        return caller

    def test_handshake(self) -> None:
        """Polite peers shake hands by themselves; each message takes the latency, no more."""
        caller = self.dial()
        self.clock.pump([0.5] * 3)  # HELLO, HELLO, AUTH
        self.assertIs(self.successResultOf(self.callee.authenticated), self.callee)
        self.assertNoResult(caller.authenticated)
        self.clock.advance(0.5)
        self.assertIs(self.successResultOf(caller.authenticated), caller)
        self.assertEqual(caller.auth.peer_id, make_node(2).peer_id)
        self.assertEqual(self.callee.auth.peer_id, make_node(3).peer_id)

    def test_conversation(self) -> None:
        """What one says the other keeps, and who waits for it is told."""
        caller = self.dial()
        self.clock.pump([0.5] * 5)
        waiting = self.callee.wait_for(MessageType.GET_TX_SET)
        caller.send(advert(1))
        caller.send(get_tx_set())
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(waiting), get_tx_set())
        self.assertEqual(self.callee.of_type(MessageType.FLOOD_ADVERT), [advert(1)])
        self.callee.send(advert(2))
        self.clock.advance(0.5)
        self.assertEqual(caller.of_type(MessageType.FLOOD_ADVERT), [advert(2)])

    def test_impolite(self) -> None:
        """A peer that is not polite says nothing until it is told to."""
        caller = self.dial(is_polite=False)
        self.clock.pump([0.5] * 5)
        self.assertEqual(self.callee.received, [])
        caller.say_hello()
        self.clock.pump([0.5] * 5)
        self.assertEqual([message.type for message in self.callee.received], [MessageType.HELLO])
        self.assertEqual([message.type for message in caller.received], [MessageType.HELLO])
        self.assertFalse(caller.auth.is_authenticated)

    def test_hanging_up(self) -> None:
        """Both ends learn of the end; where nobody listens any more, nobody answers."""
        caller = self.dial()
        assert caller.transport is not None
        caller.transport.loseConnection()
        self.clock.pump([0.5] * 5)
        self.assertTrue(self.successResultOf(self.callee.closed).is_closed)
        self.assertTrue(caller.is_closed)
        self.port.stopListening()
        endpoint = self.network.client("10.0.0.3")(SERVER)
        refused = endpoint.connect(ScriptedPeer.factory(lambda: self.callee))
        self.failureResultOf(refused, RefusedError)
