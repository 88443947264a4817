"""Links that do as they are told, and the admission of a node that they ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.admission import Admission, ConnectionLimits
from stellar_overlay.identity import PeerId

OWN = PeerId(b"\x80" * 32)
LESSER = PeerId(b"\x01" * 32)
GREATER = PeerId(b"\xff" * 32)


@dataclass(eq=False)
class FakeLink:
    """A link that tells its admission of its end as a real one does: at once, when dropped.

    :ivar is_abrupt: whether its transport is closed at that moment as well.
    """

    we_called_remote: bool = False
    remote: ResolvedPeerAddress | None = None
    last_read: float = 0.0
    dropped: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    admission: Admission | None = None
    peer_id: PeerId | None = None
    is_abrupt: bool = False

    def drop(self, violation: PeerViolation) -> None:
        self.dropped.append(violation.reason)
        self.codes.append(violation.code)
        assert self.admission is not None
        for _ in range(2):
            self.admission.remove(self)
            if self.is_abrupt:
                self.admission.forget(self)


def at(host: str, port: int = 40_000) -> ResolvedPeerAddress:
    """Return the socket address of a caller."""
    return ResolvedPeerAddress(host, port)


def node(number: int) -> PeerId:
    """Return the id of a node; greater numbers make greater ids."""
    return PeerId(bytes([number]) * 32)


def limits(
    outbound: int = 8, inbound: int = 64, pending: int = 500, *, target: int | None = None
) -> ConnectionLimits:
    """Return the limits of a configuration."""
    return ConnectionLimits.of(
        target_outbound=outbound if target is None else target,
        max_outbound=outbound,
        max_inbound=inbound,
        max_pending=pending,
        max_files=None,
    )


def exactly(
    outbound: int = 8,
    inbound: int = 64,
    *,
    outbound_pending: int = 56,
    inbound_pending: int = 444,
    target: int | None = None,
) -> ConnectionLimits:
    """Return just these limits."""
    return ConnectionLimits(
        target_outbound=outbound if target is None else target,
        max_outbound=outbound,
        max_inbound=inbound,
        max_outbound_pending=outbound_pending,
        max_inbound_pending=inbound_pending,
    )


class AdmissionTestCase(SynchronousTestCase):
    """Makes links and brings them through their stages."""

    def admission(
        self,
        *,
        allow_private: bool = False,
        outbound: int = 8,
        inbound: int = 64,
        outbound_pending: int = 56,
        inbound_pending: int = 444,
        preferred: Iterable[PeerId] = (),
        preferred_only: bool = False,
    ) -> Admission:
        return Admission(
            exactly(
                outbound,
                inbound,
                outbound_pending=outbound_pending,
                inbound_pending=inbound_pending,
            ),
            OWN,
            allow_private=allow_private,
            preferred_ids=frozenset(preferred),
            preferred_only=preferred_only,
        )

    def pending(
        self, admission: Admission, *, ours: bool = False, host: str | None = "192.0.2.1"
    ) -> FakeLink:
        remote = None if host is None else at(host)
        link = FakeLink(we_called_remote=ours, remote=remote, admission=admission)
        admission.open(link)
        return link

    def authenticated(
        self,
        admission: Admission,
        peer_id: PeerId,
        *,
        ours: bool = False,
        last_read: float = 0,
        host: str | None = "192.0.2.1",
        address: ResolvedPeerAddress | None = None,
    ) -> FakeLink:
        link = self.pending(admission, ours=ours, host=host)
        link.peer_id = peer_id
        link.last_read = last_read
        admission.admit(link, peer_id, address)
        return link

    def assert_refused(
        self, reason: str, code: int, call: Callable[..., object], *args: object
    ) -> None:
        with self.assertRaises(PeerViolation) as caught:
            call(*args)
        violation = caught.exception
        self.assertEqual((violation.reason, violation.code), (reason, code))
