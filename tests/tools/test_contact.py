"""Finding peers for a command, and saying why there are none."""

from __future__ import annotations

import itertools
from argparse import Namespace

from twisted.internet.defer import CancelledError, Deferred

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import ConfigError, ErrorCode
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.cli import ExitStatus
from stellar_overlay.tools.contact import (
    CONTACT_SECONDS,
    PATIENCE_SECONDS,
    RETRY_SECONDS,
    Contact,
    Failure,
    addresses_of,
    config_of,
    status_of,
)
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    PeerEntry,
    encode_error,
    encode_get_scp_state,
    encode_peers,
)
from tests.processes import call
from tests.tools.onlookers import OnlookerTestCase

FULL = Message(encode_error(ErrorCode.ERR_LOAD, "peer rejected"))


class Talkative(ScriptedPeer):
    """Says something of its own after the handshake."""

    last_words: tuple[Message, ...] = ()
    hangs_up = True

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.AUTH:
            for each in self.last_words:
                self.send(each)
            if self.hangs_up:
                assert self.transport is not None
                self.transport.loseConnection()


class FullPeer(Talkative):
    """Is full, and knows somebody else."""

    last_words = Message(encode_peers([PeerEntry("10.0.0.2", 11625)])), FULL


class GonePeer(Talkative):
    """Hangs up without a word."""


class WelcomingPeer(Talkative):
    """Says what a peer says that stays."""

    last_words = (Message(encode_get_scp_state(1)),)
    hangs_up = False


class ContactTests(OnlookerTestCase):
    """One round after the other."""

    def reach(self, contact: Contact) -> None:
        """Let a round end."""
        self.network.result_of(contact.reach(), timeout=CONTACT_SECONDS + 20)

    def started(self, *names: str, wanted: int | None = None, hints: bool = False) -> Contact:
        """Return a contact whose node runs."""
        self.node = self.overlay()
        self.network.result_of(self.node.start())
        return self.contact(self.node, *names, wanted=wanted, follows_hints=hints)

    def test_connected(self) -> None:
        """Real nodes stay, and it is known at once that they do."""
        self.network.add_node("a")
        self.network.add_node("b")
        contact = self.started("a", "b")
        start = self.network.clock.seconds()
        self.reach(contact)
        self.assertLess(self.network.clock.seconds() - start, PATIENCE_SECONDS)
        self.assertEqual(
            contact.peers,
            {
                self.network.address(name): self.network.node(name).local_node.peer_id
                for name in "ab"
            },
        )
        self.assertEqual((contact.failures, contact.has_met_anyone), ({}, True))

    def test_no_more_than_wanted(self) -> None:
        """Who is not needed is not dialled."""
        for name in "abc":
            self.network.add_node(name)
        contact = self.started("a", "b", "c", wanted=2)
        self.reach(contact)
        self.assertEqual(list(contact.peers), [self.network.address(name) for name in "ab"])
        self.assertEqual(len(self.network.memory.dials), 2)

    def test_silent_peer(self) -> None:
        """A peer that says nothing after the handshake is taken for one that stays."""
        self.network.add_peer("a")
        contact = self.started("a")
        self.reach(contact)
        self.assertEqual(list(contact.peers), [self.network.address("a")])

    def test_full_peers(self) -> None:
        """Who is full says so after the handshake, which is no contact; the next one is dialled."""
        self.network.add_peer("full", kind=FullPeer)
        self.network.add_peer("gone", kind=GonePeer)
        self.network.add_peer("fine", kind=WelcomingPeer)
        contact = self.started("full", "gone", "fine", wanted=1)
        self.reach(contact)
        self.assertEqual(list(contact.peers), [self.network.address("fine")])
        full, gone = contact.failures.values()
        self.assertEqual(
            full, Failure("10.0.0.1:11625", "the peer is full: ERR_LOAD (peer rejected)", True)
        )
        self.assertIn("without a word right after the handshake", gone.reason)

    def test_hints(self) -> None:
        """Whom a full peer names is dialled instead, unless the user said whom to dial."""
        for hints in (True, False):
            self.setUp()
            self.network.add_peer("full", kind=FullPeer)
            self.network.add_node("other")
            contact = self.started("full", hints=hints)
            self.reach(contact)
            self.assertEqual(contact.has_met_anyone, hints)
            self.assertEqual(list(contact.peers), [self.network.address("other")] * hints)

    def test_reasons(self) -> None:
        """Each address has one plain reason, and it is known whether anybody was there."""
        self.network.add_peer("mute", is_polite=False)
        self.network.add_peer("foreign", local_node=LocalNode("another network"))
        node = self.overlay()
        self.network.result_of(node.start())
        nobody, slow = self.nowhere(), PeerAddress("10.7.7.7")
        named = PeerAddress("no.such.name")
        self.network.memory.black_holes.add(slow.host)
        strangers = [self.network.address(name) for name in ("mute", "foreign")]
        addresses = [nobody, slow, named, *strangers]
        contact = Contact(node, self.network.clock, addresses, 5, follows_hints=False)
        self.reach(contact)
        found = [
            (contact.failures[each].reason, contact.failures[each].is_refusal) for each in addresses
        ]
        self.assertEqual(
            found[:2],
            [
                ("nobody listens there: the connection was refused", False),
                ("nobody answers there in time", False),
            ],
        )
        self.assertIn("no such name", found[2][0])
        self.assertEqual(found[3], ("the peer did not finish the handshake in time", True))
        self.assertIn("belongs to another network", found[4][0])
        self.assertFalse(contact.has_met_anyone)
        failures = list(contact.failures.values())
        self.assertEqual(status_of(failures), ExitStatus.REFUSED)
        unreachable = [failure for failure in failures if not failure.is_refusal]
        self.assertEqual(status_of(unreachable), ExitStatus.UNREACHABLE)

    def test_deadline(self) -> None:
        """However many addresses are dead, a round ends."""
        node = self.overlay()
        self.network.result_of(node.start())
        dead = [PeerAddress(f"10.7.7.{number}") for number in range(100)]
        self.network.memory.black_holes.update(address.host for address in dead)
        contact = Contact(node, self.network.clock, dead, 1, follows_hints=False)
        self.reach(contact)
        self.assertLess(len(contact.failures), 10)

    def test_lost_link(self) -> None:
        """A peer that is lost is dialled again, as long as somebody keeps looking."""
        self.network.add_node("a")
        contact = self.started("a")
        self.reach(contact)
        keeping = Deferred.fromCoroutine(contact.keep())
        self.network.stop("a")
        self.network.advance(RETRY_SECONDS + 1)
        self.assertEqual(contact.peers, {})
        self.network.restart("a")
        self.assertTrue(self.network.run_until(lambda: bool(contact.peers), timeout=60))
        keeping.cancel()
        self.failureResultOf(keeping, CancelledError)

    def test_patience(self) -> None:
        """Who is not there is dialled less and less often, until a link is lost."""
        self.network.add_node("a")
        self.network.add_peer("dead", is_listening=False)
        contact = self.started("a", "dead")
        self.reach(contact)
        keeping = Deferred.fromCoroutine(contact.keep())
        self.network.advance(600)
        dead = str(self.network.address("dead"))
        dials = [dial.at for dial in self.network.memory.dials if str(dial.to) == dead]
        gaps = [later - earlier for earlier, later in itertools.pairwise(dials[1:])]
        self.assertEqual(gaps, sorted(gaps))
        self.assertTrue(4 <= len(gaps) <= 8, gaps)
        self.network.stop("a")
        self.network.advance(RETRY_SECONDS + 1)
        self.assertEqual(str(self.network.memory.dials[-1].to), dead)
        keeping.cancel()
        self.failureResultOf(keeping, CancelledError)


class AddressesTests(OnlookerTestCase):
    """Whom the command line names."""

    def test_given(self) -> None:
        """Those of --peer, each once, in this order."""
        arguments = Namespace(peer=["b.example", "a.example:5", "b.example:11625"])
        addresses = addresses_of(arguments, config_of(self.me))
        self.assertEqual(list(map(str, addresses)), ["b.example:11625", "a.example:5"])

    def test_well_known(self) -> None:
        """Without any, those of a public network; a private one has none."""
        addresses = addresses_of(Namespace(peer=[]), config_of(self.me))
        self.assertEqual(
            {address.host for address in addresses},
            {f"core-testnet{number}.stellar.org" for number in (1, 2, 3)},
        )
        private = config_of(LocalNode("private"))
        self.assertRaises(ConfigError, addresses_of, Namespace(peer=[]), private)

    def test_no_address(self) -> None:
        """What is no address is a mistake that names the option."""
        for command in (("watch",), ("submit", "AAAA")):
            result = call(self, *command, "--peer", "a b")
            self.assertEqual((result.status, result.stdout), (2, ""))
            self.assertIn("--peer: 'a b'", result.stderr)


class FailureTests(OnlookerTestCase):
    def test_shown(self) -> None:
        """What a peer says of itself cannot play with the terminal."""
        self.assertEqual(str(Failure("a:1", "x\x1b[2J", True)), "a:1: x\\x1b[2J")
