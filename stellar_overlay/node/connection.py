"""A link over a transport: drives one :class:`~stellar_overlay.session.session.Session`.

The only place where bytes meet a transport, and the one exit for misbehaviour: a
:exc:`~stellar_overlay.error.PeerViolation` raised anywhere below ends up in
:meth:`Connection.drop`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Protocol

from twisted.internet import protocol
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.budget import Hold, Shares
from stellar_overlay.node.flush_queue import FlushQueue
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.session import Received, Session
from stellar_overlay.wire.message import Message

CLOSING_DELAY_SECONDS = 5
"""How long a dropped link may take to deliver its last bytes (core Peer.cpp:406-437)."""
_NO_LINGER = struct.pack("ii", 0, 0)
_NOTHING: list[Item] = []
"""No messages; a list of its own takes 56 bytes."""


class LinkOwner(Protocol):
    """Whom a connection reports to: the links of a node, or a tool."""

    def open_session(self, link: Connection) -> Session:
        """Return the session of a link whose transport is there now."""
        ...

    def link_authenticated(self, link: Connection) -> None:
        """Note that the peer was admitted; its first messages follow."""
        ...

    def dispatch(self, link: Connection, items: Sequence[Item]) -> None:
        """Hand messages to whoever wants them, and report each as processed in time."""
        ...

    def link_dropped(self, link: Connection, violation: PeerViolation) -> None:
        """Note that the link counts no more; its last bytes may still be on their way."""
        ...

    def link_gone(self, link: Connection) -> None:
        """Note that the transport is closed."""
        ...


class LinkTransport(Protocol):
    """What a connection uses of its transport: ITransport, IConsumer and a way to break off."""

    def getPeer(self) -> IAddress: ...
    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(protocol.Protocol):
    """One link to a peer, in either direction.

    Towards the transport it is a push producer: while the transport's buffer is full nothing is
    sealed, so that our queue stays where its limits are.

    :param owner: whom to report to.
    :param clock: for the one timer of the link.
    :param flusher: shared by all links of an owner.
    :param shares: what all links of an owner may use together; None is as much as they like.
    :param we_called_remote: whether we dialled.
    """

    _log = Logger()
    transport: LinkTransport  # type: ignore[assignment]
    session: Session

    def __init__(
        self,
        owner: LinkOwner,
        clock: IReactorTime,
        flusher: FlushQueue,
        metrics: OverlayMetrics,
        *,
        we_called_remote: bool,
        shares: Shares | None = None,
    ) -> None:
        self.we_called_remote = we_called_remote
        self.remote: ResolvedPeerAddress | None = None
        self.violation: PeerViolation | None = None
        self.is_authenticated = False
        self.messages_read = self.messages_written = 0
        self.bytes_read = self.bytes_written = 0
        self.async_reads = self.async_writes = 0
        self._owner = owner
        self._clock = clock
        self._flusher = flusher
        self._metrics = metrics
        self._timer: IDelayedCall | None = None
        self._is_write_paused = False
        self._holds: frozenset[Hold] = frozenset()
        self._shares = shares
        self._unprocessed = 0
        self._is_driving = False
        self._finished: list[Item] = _NOTHING
        self._waiters: tuple[Deferred[Connection], ...] = ()

    # From the transport.

    def connectionMade(self) -> None:
        self.remote = resolved_address(self.transport.getPeer())
        _set_socket_options(self.transport)
        self.session = self._owner.open_session(self)
        if self.violation is not None:
            return  # whoever was told of it dropped it at once
        self.transport.registerProducer(self, True)
        self._timer = self._clock.callLater(
            self.session.deadline - self._clock.seconds(), self._on_timer
        )
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        if self.violation is not None:
            return  # what came after the end is not looked at
        self.bytes_read += len(data)
        self._metrics.bytes_read.add(len(data))
        self.async_reads += 1
        self._metrics.async_read.add(1)
        self._drive(data)

    def readConnectionLost(self) -> None:
        """Let what was written still leave: the peer says no more, but may be listening."""
        if self.violation is None:
            self.flush()
            self._note_lost(protocol.connectionDone)
            self._hang_up(b"", is_told=False)
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Wait for the peer to hang up as well."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._note_lost(reason)
        self._cancel_timer()
        self._owner.link_gone(self)

    def pauseProducing(self) -> None:
        """Seal nothing more until the transport's buffer has drained."""
        self._is_write_paused = True

    def resumeProducing(self) -> None:
        """Go on: the transport has written everything it was given."""
        self._is_write_paused = False
        if self.violation is None:
            self.session.note_written(self._clock.seconds())
            self.flush()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""

    # From the node.

    def when_authenticated(self) -> Deferred[Connection]:
        """Return a Deferred that fires with the link, or fails with why it ended."""
        waiter: Deferred[Connection] = Deferred()
        if self.violation is not None:
            waiter.errback(self.violation)
        elif self.is_authenticated:
            waiter.callback(self)
        else:
            self._waiters = (*self._waiters, waiter)
        return waiter

    def send(self, message: Message) -> bool:
        """Queue a message for the end of the turn; False when the peer gets it not at all.

        :raises ValueError: for what only the protocol itself may send.
        """
        if self.violation is not None or not self.session.send(message, self._clock.seconds()):
            return False
        self._flusher.add(self)
        return True

    def processed(self, items: Sequence[Item]) -> None:
        """Return the credit of messages that were dispatched; call once for each."""
        if self.violation is not None or not items:
            return
        self.session.processed(items, self._clock.seconds())
        if self._is_driving:
            return
        if self.session.outbox.has_work:
            self._flusher.add(self)
        if Hold.CREDIT in self._holds:
            self._drive(None)
        else:
            self._note_unprocessed()

    def finished(self, item: Item) -> None:
        """Return the credit of one message later than its batch, at the end of the turn."""
        if self.violation is None:
            if self._finished is _NOTHING:
                self._finished = []
            self._finished.append(item)
            self._flusher.add(self)

    def drop(self, violation: PeerViolation) -> None:
        """End the link: ERROR_MSG if the peer is told, then close; later calls do nothing."""
        if self.violation is not None:
            return
        may_flush = not self._is_write_paused and violation.kind is not DropReason.INTERNAL
        now = self._clock.seconds()
        try:
            last = self.session.close(violation, now, may_flush=may_flush)
        except Exception:
            self._log.failure("{link}: internal error while closing", link=self.label)
            last = self.session.close(violation, now, may_flush=False)
        self._end(violation)
        self._hang_up(last, is_told=violation.code is not None)

    def flush(self) -> None:
        """Write what may leave, as far as the transport takes it."""
        now = self._clock.seconds()
        try:
            if self._finished is not _NOTHING:
                finished, self._finished = self._finished, _NOTHING
                self.processed(finished)
            while not self._is_write_paused and self.violation is None:
                data = self.session.data_to_send(now)
                if not data:
                    break
                self._write(data)
                if not self._is_write_paused:
                    self.session.note_written(now)
        except Exception:
            self._drop_for_our_fault()

    def hold(self, reason: Hold) -> None:
        """Read nothing from the transport until :meth:`release`."""
        was_reading = not self._holds
        self._holds |= {reason}
        if was_reading and self.violation is None:
            self.transport.pauseProducing()

    def release(self, reason: Hold) -> None:
        """Go on reading unless something else holds."""
        was_reading = not self._holds
        self._holds -= {reason}
        if not (was_reading or self._holds) and self.violation is None:
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Close the transport at once, whatever it still holds."""
        self.transport.abortConnection()

    # The one path.

    def _drive(self, data: bytes | None) -> None:
        """Take data, or go on with what was left; deal with all that comes of it."""
        now = self._clock.seconds()
        self._flusher.begin_turn()
        self._is_driving = True
        try:
            self._receive(data, now)
        except PeerViolation as violation:
            self.drop(violation)
        except Exception:
            self._drop_for_our_fault()
        finally:
            self._is_driving = False
            self._flusher.end_turn()
        if self._shares is not None and self.violation is None:
            self._note_unprocessed()
            end = self._clock.seconds()
            self._shares.cpu.spent(self, end - now, end)

    def _note_unprocessed(self) -> None:
        """Tell the node how much of what this peer sent it has to keep."""
        amount = self.session.unprocessed_bytes
        if amount != self._unprocessed and self._shares is not None and self.is_authenticated:
            self._unprocessed = amount
            self._shares.received.note(self, amount)

    def _receive(self, data: bytes | None, now: float) -> None:
        session = self.session
        received = session.resume(now) if data is None else session.receive(data, now)
        while True:
            self._count_read()
            self._dispatch(received)
            if received.violation is not None:
                raise received.violation
            if not session.has_more:
                break
            received = session.resume(now)
        if self._waiters and self.is_authenticated and self.violation is None:
            self._wake(self)  # not before it is known that no ERROR_MSG came right after AUTH
        if session.outbox.has_work:
            self._flusher.add(self)
        if self._holds or not session.may_read:
            self._adjust_reading(now)

    def _dispatch(self, received: Received) -> None:
        if not self.is_authenticated and self.session.is_authenticated:
            self.is_authenticated = True
            self._owner.link_authenticated(self)
        if received.messages and self.violation is None:
            self._owner.dispatch(self, received.messages)

    def _adjust_reading(self, now: float) -> None:
        """Read only while there is capacity for what comes."""
        is_held = Hold.CREDIT in self._holds
        if self.session.may_read != is_held or self.violation is not None:
            return
        flow = self.session.flow_control
        if is_held:
            self._metrics.connection_read_throttle.record(flow.stop_throttling(now))
            self.release(Hold.CREDIT)
        else:
            flow.maybe_throttle_read(now)
            self.hold(Hold.CREDIT)

    def _on_timer(self) -> None:
        # After a long turn the peer's bytes may be waiting in the kernel: read them first.
        self._timer = self._clock.callLater(0, self._check_clocks)

    def _check_clocks(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        try:
            self.session.on_deadline(now)
        except PeerViolation as violation:
            self.drop(violation)
        except Exception:
            self._drop_for_our_fault()
        else:
            self._timer = self._clock.callLater(self.session.deadline - now, self._on_timer)
            self.flush()

    # The end.

    def _note_lost(self, reason: Failure) -> None:
        if self.violation is None:
            violation = self.session.lost(reason.getErrorMessage())
            self.session.close(violation, self._clock.seconds(), may_flush=False)
            self._end(violation)

    def _drop_for_our_fault(self) -> None:
        self._log.failure("{link}: internal error", link=self.label)
        self.drop(DropReason.INTERNAL.violation())

    def _end(self, violation: PeerViolation) -> None:
        self.violation = violation
        self._cancel_timer()
        if violation.kind is not None:
            self._metrics.drops[violation.kind].inc()
        if self._shares is not None:
            self._shares.forget(self)
        self._owner.link_dropped(self, violation)
        self._wake(Failure(violation))

    def _hang_up(self, last: bytes, *, is_told: bool) -> None:
        """Send the last bytes and close; whatever happens, be gone in five seconds."""
        self.transport.unregisterProducer()
        if last:
            self._write(last)
        self._timer = self._clock.callLater(CLOSING_DELAY_SECONDS, self.abort)
        if self._holds:
            self.transport.resumeProducing()
        if is_told and hasattr(self.transport, "loseWriteConnection"):
            # Bytes that we leave unread would make the kernel reset the link and the peer lose
            # our last words: read on, deaf, until the peer closes.
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _write(self, data: bytes) -> None:
        self.bytes_written += len(data)
        self._metrics.bytes_written.add(len(data))
        self.async_writes += 1
        self._metrics.async_write.add(1)
        self._count_written()
        self.transport.write(data)

    def _count_read(self) -> None:
        """Count the accepted messages: HELLO, and all that carried the right number and MAC."""
        opening = self.session.auth.opening
        read = 0 if opening is None else 1 + opening.sequence
        self._metrics.messages_read.add(read - self.messages_read)
        self.messages_read = read

    def _count_written(self) -> None:
        """Count the messages that have left: HELLO, all that carry a number, and ERROR_MSG."""
        sealing = self.session.auth.sealing
        written = int(self.we_called_remote) if sealing is None else 1 + sealing.sequence
        if self.violation is not None and self.violation.code is not None:
            written += 1
        self._metrics.messages_written.add(written - self.messages_written)
        self.messages_written = written

    def _wake(self, result: Connection | Failure) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            waiter.callback(result)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    @property
    def direction(self) -> str:
        """Who dialled: ``inbound`` or ``outbound``."""
        return "outbound" if self.we_called_remote else "inbound"

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages and bytes that were read and are not handed on yet."""
        return self.session.waiting

    @property
    def last_read(self) -> float:
        """When the peer was last heard, in seconds of the injected clock."""
        return self.session.clocks.last_read

    @property
    def label(self) -> str:
        """How the log names the link."""
        peer_id = self.session.auth.peer_id if hasattr(self, "session") else None
        return f"{peer_id.short}@{self.remote}" if peer_id is not None else str(self.remote)


def resolved_address(address: IAddress) -> ResolvedPeerAddress | None:
    """Return the socket address of a peer, or None when it has no IP address."""
    if isinstance(address, IPv4Address | IPv6Address):
        return ResolvedPeerAddress(address.host, address.port)
    return None


def _set_socket_options(transport: object) -> None:
    """TCP_NODELAY on, SO_LINGER off (core TCPPeer.cpp:94-107)."""
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
    handle = getattr(transport, "getHandle", None)
    if handle is not None:
        handle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
