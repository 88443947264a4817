"""The peers of the configuration, whose names are looked up again and again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import OverlayError
from stellar_overlay.node.resolver import MAX_LOOKUPS, Resolve, as_resolved

ROUND_SECONDS = 600
"""From the end of one round to the next (core OverlayManagerImpl.cpp, PEER_IP_RESOLVE_DELAY)."""
RETRY_STEP_SECONDS = 10
"""While no round was free of errors: so much longer after each (PEER_IP_RESOLVE_RETRY_DELAY)."""
MAX_CONFIGURED_PEERS = 1000
"""In both lists, those of home domains included (henyey manager/mod.rs)."""
LOOKUPS_AT_ONCE = 50
"""That a round asks of the resolver, whose deadlines include the waiting for a turn."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Where the configured peers are: in the order of the configuration, each address once.

    :ivar known: without those that are preferred too.
    """

    known: tuple[ResolvedPeerAddress, ...]
    preferred: tuple[ResolvedPeerAddress, ...]


class ConfiguredPeers(Service):
    """KNOWN_PEERS and PREFERRED_PEERS, in rounds (connection.md 8.6 to 8.8).

    A name that cannot be resolved is left out of the results until a round finds it again; a
    preferred one thereby stops being preferred, as in core (connection.md 12, row 62).

    :ivar known: addresses that the latest round found and that are not preferred.
    :ivar preferred: those of PREFERRED_PEERS.
    :ivar preferred_set: the same, to look up.
    """

    _log = Logger()

    def __init__(
        self,
        known: Sequence[PeerAddress],
        preferred: Sequence[PeerAddress],
        resolve: Resolve,
        clock: IReactorTime,
    ) -> None:
        self.known: tuple[ResolvedPeerAddress, ...] = ()
        self.preferred: tuple[ResolvedPeerAddress, ...] = ()
        self.preferred_set: frozenset[ResolvedPeerAddress] = frozenset()
        self._resolve = resolve
        self._clock = clock
        self._permits = DeferredSemaphore(LOOKUPS_AT_ONCE)
        self._has_refused = False
        self._known: dict[PeerAddress, None] = {}
        self._preferred: dict[PeerAddress, None] = {}
        for address in self._admitted(preferred):
            self._preferred[address] = None
        for address in self._admitted(known):
            self._known[address] = None
        self._found: dict[PeerAddress, ResolvedPeerAddress] = {}
        self._last_found: dict[PeerAddress, ResolvedPeerAddress] = {}
        self._failing: set[PeerAddress] = set()
        self._results: Resolved | None = None
        self._rounds = 0
        self._failing_rounds = 0
        self._was_round_clean = False
        self._timer: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._is_due = False
        self._added: list[PeerAddress] = []

    def startService(self) -> None:
        super().startService()
        self._is_due = True
        self._proceed()

    def stopService(self) -> None:
        """End everything at once; answers that are still to come are ignored."""
        super().stopService()
        self._is_due = False
        self._added.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._round is not None:
            self._round.cancel()

    def take_results(self) -> Resolved | None:
        """Return what was found, if a round ended since the last call."""
        results, self._results = self._results, None
        return results

    def add_known(self, addresses: Iterable[PeerAddress]) -> None:
        """Add known peers that were heard of later, and look them up soon."""
        for address in self._admitted(addresses):
            self._known[address] = None
            if self.running:
                self._added.append(address)
        self._proceed()

    @property
    def last_preferred(self) -> frozenset[ResolvedPeerAddress]:
        """Where each preferred peer was found last, those included that cannot be found now."""
        last = self._last_found
        return frozenset(last[name] for name in self._preferred if name in last)

    # What is configured.

    def _admitted(self, addresses: Iterable[PeerAddress]) -> Iterable[PeerAddress]:
        """Yield those that are new, for as long as there is room; each must be stored at once."""
        for address in addresses:
            if address in self._known or address in self._preferred:
                continue
            if len(self._known) + len(self._preferred) < MAX_CONFIGURED_PEERS:
                yield address
            elif not self._has_refused:
                self._has_refused = True
                self._log.warn(
                    "{peer} and further peers are ignored: there are {count} configured already",
                    peer=str(address),
                    count=MAX_CONFIGURED_PEERS,
                )

    # Rounds, one at a time.

    def _proceed(self) -> None:
        if not self.running or self._round is not None or not (self._is_due or self._added):
            return
        is_full = self._is_due or self._timer is None
        addresses = [*self._known, *self._preferred] if is_full else self._added
        self._is_due, self._added = False, []
        self._round = Deferred.fromCoroutine(self._run_round(addresses, is_full))
        self._round.addErrback(self._note_bug, "in a round of lookups")
        self._round.addCallback(self._end_round)

    async def _run_round(self, addresses: Sequence[PeerAddress], is_full: bool) -> None:
        """Look addresses up and publish what was found.

        :param is_full: whether these are all that are configured, and the next round is to be
            arranged.
        """
        numeric = [address for address in addresses if address.is_numeric]
        names = self._in_turn([address for address in addresses if not address.is_numeric])
        lookups = [self._permits.run(self._look_up, name) for name in names]
        outcomes = await DeferredList(lookups, consumeErrors=True)
        if not self.running:
            return
        if is_full and names:  # at first, so that no fault of ours ends the rounds
            self._timer = self._clock.callLater(ROUND_SECONDS, self._on_timer)
        for address in numeric:
            self._found[address] = self._last_found[address] = as_resolved(address)
        for name, (_, outcome) in zip(names, outcomes, strict=True):
            if isinstance(outcome, Failure):
                self._note_failure(name, outcome)
            else:
                self._note_found(name, outcome)
        self._publish()
        if is_full and names:
            self._rounds += 1
            delay = self._delay_seconds(is_clean=self._failing.isdisjoint(names))
            assert self._timer is not None
            self._timer.reset(delay)

    def _end_round(self, _: None) -> None:
        self._round = None
        self._proceed()

    def _on_timer(self) -> None:
        self._timer = None
        self._is_due = True
        self._proceed()

    def _delay_seconds(self, *, is_clean: bool) -> float:
        """Return how long after a round the next one is due (connection.md 8.7.2)."""
        self._was_round_clean = self._was_round_clean or is_clean
        if self._was_round_clean:
            return ROUND_SECONDS
        self._failing_rounds += 1
        return min(self._failing_rounds * RETRY_STEP_SECONDS, ROUND_SECONDS)

    def _in_turn(self, names: Sequence[PeerAddress]) -> list[PeerAddress]:
        """Put those that failed last, and another of them first each time.

        Otherwise a few names whose server is dead would keep the resolver busy in every round,
        and those behind them would never be looked up.
        """
        failing = [name for name in names if name in self._failing]
        start = self._rounds * MAX_LOOKUPS % len(failing) if failing else 0
        others = [name for name in names if name not in self._failing]
        return [*others, *failing[start:], *failing[:start]]

    def _look_up(self, name: PeerAddress) -> Deferred[ResolvedPeerAddress]:
        if not self.running:  # its permit is that of a lookup that stopping has cancelled
            raise CancelledError()
        return self._resolve(name)

    # Results.

    def _note_found(self, name: PeerAddress, found: ResolvedPeerAddress) -> None:
        before = self._found.get(name)
        self._found[name] = self._last_found[name] = found
        if name in self._failing:
            self._failing.discard(name)
            self._log.info("{peer} was found again: {host}", peer=str(name), host=found.host)
        elif before is not None and before != found:
            self._log.info(
                "{peer} moved from {before} to {host}",
                peer=str(name),
                before=before.host,
                host=found.host,
            )

    def _note_failure(self, name: PeerAddress, failure: Failure) -> None:
        self._found.pop(name, None)
        if name in self._failing:
            return
        self._failing.add(name)
        if failure.check(OverlayError):
            reason = failure.getErrorMessage()
            self._log.warn("{peer} is skipped: {reason}", peer=str(name), reason=reason)
        else:
            self._note_bug(failure, f"looking up {name}")

    def _note_bug(self, failure: Failure, when: str) -> None:
        self._log.failure("a fault of ours {when}", failure, when=when)

    def _publish(self) -> None:
        self.preferred = self._addresses(self._preferred)
        self.preferred_set = frozenset(self.preferred)
        known = self._addresses(self._known)
        self.known = tuple(address for address in known if address not in self.preferred_set)
        self._results = Resolved(known=self.known, preferred=self.preferred)

    def _addresses(self, names: Iterable[PeerAddress]) -> tuple[ResolvedPeerAddress, ...]:
        return tuple(dict.fromkeys(self._found[name] for name in names if name in self._found))
