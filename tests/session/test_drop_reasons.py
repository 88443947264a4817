"""Every reason for which a link ends: how it comes about, its words, and what the peer is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, ErrorCode
from stellar_overlay.wire.auth import AuthContext, AuthState
from stellar_overlay.wire.channel import wrap_unauthenticated
from stellar_overlay.wire.codec import frame
from stellar_overlay.wire.message import (
    MessageType,
    encode_auth,
    encode_error,
    encode_peers,
    encode_send_more_extended,
)
from tests.builders import get_tx_set, make_cert, make_node
from tests.by_hand import GOOD
from tests.session import endings
from tests.session.endings import Fault, Outcome, after, at, hello, lost, sealed

CONNECTED, GOT_HELLO, GOT_AUTH = AuthState.CONNECTED, AuthState.GOT_HELLO, AuthState.GOT_AUTH


@dataclass(frozen=True)
class Row:
    """What is expected of a reason, and how it comes about."""

    text: str
    code: ErrorCode | None
    scenario: Callable[[], Outcome]


SILENT = None
DATA, CONF, AUTH = ErrorCode.ERR_DATA, ErrorCode.ERR_CONF, ErrorCode.ERR_AUTH
MISC, LOAD = ErrorCode.ERR_MISC, ErrorCode.ERR_LOAD
LOW_ORDER = make_cert(make_node(1), bytes(32))
R = DropReason

TABLE: dict[DropReason, Row] = {
    R.READ_ERROR: Row("error during read", SILENT, lambda: after(at(CONNECTED), bytes(4))),
    R.CORRUPT_XDR: Row("received corrupt XDR", DATA, lambda: sealed(b"\0\0\0\4")),
    R.UNEXPECTED_SEQUENCE: Row("unexpected auth sequence", AUTH, endings.replayed),
    R.UNEXPECTED_MAC: Row("unexpected MAC", AUTH, endings.forged),
    R.TOO_EARLY: Row(
        "received GET_TX_SET before completed handshake",
        SILENT,
        lambda: after(at(CONNECTED), frame(wrap_unauthenticated(GOOD))),
    ),
    R.UNEXPECTED_HELLO: Row(
        "received unexpected HELLO",
        SILENT,
        lambda: sealed(AuthContext(make_node(1), True).create_hello().body),
    ),
    R.BAD_CERT: Row("failed to verify auth cert", SILENT, endings.foreign),
    R.BANNED: Row("node is banned", SILENT, endings.banned),
    R.BAD_CRYPTO: Row("Bad crypto request", SILENT, lambda: hello(cert=LOW_ORDER)),
    R.NO_REMOTE_ADDRESS: Row("failed to determine remote address", SILENT, endings.without_address),
    R.WRONG_VERSION: Row(
        "wrong protocol version",
        CONF,
        lambda: hello(overlay_version=37, overlay_min_version=37),
    ),
    R.SELF: Row("connecting to self", CONF, endings.oneself),
    R.WRONG_NETWORK: Row("wrong network passphrase", CONF, lambda: hello(network_id=bytes(32))),
    R.BAD_ADDRESS: Row("bad address", CONF, lambda: hello(listening_port=65536)),
    R.ALREADY_CONNECTED: Row("already-connected peer: GCATS", CONF, endings.already_connected),
    R.AUTH_OUT_OF_ORDER: Row("out-of-order AUTH message", MISC, lambda: sealed(encode_auth())),
    R.BAD_AUTH_FLAGS: Row(
        "flow control bytes disabled",
        CONF,
        lambda: after(mouth := at(GOT_HELLO), mouth.sealed(encode_auth(100))),
    ),
    R.PEER_REJECTED: Row("peer rejected", LOAD, endings.without_slot),
    R.PREFERRED_SELECTED: Row("preferred peer selected instead", LOAD, endings.displaced),
    R.RANDOM_DISCONNECT: Row("random disconnect due to out of sync", LOAD, endings.unlucky),
    R.PEERS_FROM_CALLER: Row("received PEERS", SILENT, lambda: sealed(encode_peers([]))),
    R.TOO_MANY_PEERS: Row(
        "too many msgs PEERS",
        SILENT,
        lambda: after(
            mouth := at(GOT_AUTH, calls=False),
            mouth.sealed(encode_peers([])),
            mouth.sealed(encode_peers([])),
        ),
    ),
    R.SEND_MORE: Row(
        "unexpected message type SEND_MORE", SILENT, lambda: sealed(b"\0\0\0\x10\0\0\0\1")
    ),
    R.BAD_SEND_MORE: Row(
        "invalid message SEND_MORE_EXTENDED",
        SILENT,
        lambda: sealed(encode_send_more_extended(1, 0)),
    ),
    R.CAPACITY_OVERFLOW: Row("Peer capacity overflow", SILENT, endings.overflowing),
    R.AT_CAPACITY: Row("unexpected flood message, peer at capacity", SILENT, endings.greedy),
    R.BAD_SURVEY_SIGNATURE: Row("Survey has invalid signature", MISC, endings.forged_survey),
    R.IDLE: Row("idle timeout", SILENT, endings.silent),
    R.NO_FLOOD_REQUESTS: Row("idle timeout (no new flood requests)", SILENT, endings.stingy),
    R.STRAGGLING: Row("straggling (cannot keep up)", SILENT, endings.slow),
    R.NO_PENDING_SLOT: Row(
        "all pending inbound connections are taken", SILENT, endings.without_pending_slot
    ),
    R.DROPPED_BY_USER: Row("dropped by user", MISC, endings.dropped),
    R.SHUTDOWN: Row("shutdown", MISC, endings.shut_down),
    R.REMOTE_ERROR: Row(
        "ERR_LOAD (peer rejected*)",
        SILENT,
        lambda: after(at(GOT_AUTH), frame(wrap_unauthenticated(encode_error(4, "peer rejected!")))),
    ),
    R.LOST_AT_HEADER: Row(
        "error reading message header: Connection was closed cleanly.",
        SILENT,
        lambda: lost(b"\x80\0\0", is_clean=True),
    ),
    R.LOST_IN_BODY: Row(
        "error reading message body: Connection to the other side was lost in a non-clean fashion.",
        SILENT,
        lambda: lost(b"\x80\0\0\x40\0\0", is_clean=False),
    ),
    R.INTERNAL: Row("internal error", SILENT, endings.faulty),
}


class StillbornLinkTests(SynchronousTestCase):
    """What a whole node makes of links that never become peers."""

    def test_without_slot(self) -> None:
        """The node neither announces nor lists a peer for which there was no slot."""
        node = endings.Node(max_inbound_peers=1, target_outbound_peers=1)
        node.visit(2)
        node.visit(3)
        announced = [e.peer_id for e in node.events if e.kind == "peer.authenticated"]
        self.assertEqual(announced, [make_node(2).peer_id])
        self.assertEqual([i.peer_id for i in node.manager.peer_infos()], announced)

    def test_silent_visitor(self) -> None:
        """H11: a visitor that says nothing is gone, and metered, after 2 to 7 seconds."""
        node = endings.Node()
        visitor = node.visit(2, is_polite=False)
        node.clock.advance(0.9)
        self.assertFalse(visitor.is_closed)
        node.clock.pump([0.1] * 51)
        self.assertTrue(visitor.is_closed)
        self.assertEqual(node.manager.metrics.timeouts_idle.get(), 1)
        self.assertEqual(node.outcome(), Outcome(R.IDLE, "idle timeout", None))

    def test_older_link_stays(self) -> None:
        """Of two links of one direction that both came as far as AUTH the older is kept."""
        node = endings.Node()
        visitors = [node.visit(2, is_polite=False) for _ in range(2)]
        for visitor in visitors:
            visitor.say_hello()
            node.clock.pump([0.1, 0.1])
            visitor.auth.accept_hello(visitor.auth.read_hello(visitor.received[0]))
        for visitor in visitors:
            visitor.say_auth()
            node.clock.pump([0.1, 0.1])
        self.assertEqual([v.error for v in visitors], [None, (2, b"already-connected peer: GCATS")])
        self.assertEqual(len(node.manager.peer_infos()), 1)
        self.assertTrue(node.manager.send_to(make_node(2).peer_id, get_tx_set()))
        node.clock.pump([0.1, 0.1])
        self.assertEqual(len(visitors[0].of_type(MessageType.GET_TX_SET)), 1)


class DropReasonTests(SynchronousTestCase):
    """Each row of the table, played."""

    def test_table_is_complete(self) -> None:
        """Every reason has a scenario, and no two are the same to Python."""
        self.assertEqual(set(TABLE), set(DropReason))
        self.assertEqual(len(DropReason.__members__), len(TABLE))

    def test_codes(self) -> None:
        """The table in the package has the codes of this one."""
        codes = {reason: row.code for reason, row in TABLE.items()}
        self.assertEqual({reason: reason.code for reason in DropReason}, codes)

    def test_texts_fit(self) -> None:
        """What a peer is told fits into the 100 bytes of an ERROR_MSG."""
        for row in TABLE.values():
            if row.code is not None:
                self.assertLessEqual(len(row.text.encode()), 100)

    def _play(self, reason: DropReason) -> None:
        row = TABLE[reason]
        outcome = row.scenario()
        self.assertEqual(len(self.flushLoggedErrors(Fault)), reason is DropReason.INTERNAL)
        told = None if row.code is None else (int(row.code), row.text.encode())
        self.assertEqual(outcome, Outcome(reason, row.text, told))


def _test_of(reason: DropReason) -> Callable[[DropReasonTests], None]:
    def test(self: DropReasonTests) -> None:
        self._play(reason)

    test.__doc__ = f"{TABLE[reason].text!r}: exactly this reason, and this on the wire."
    return test


for _reason in TABLE:
    setattr(DropReasonTests, f"test_{_reason.name.lower()}", _test_of(_reason))
