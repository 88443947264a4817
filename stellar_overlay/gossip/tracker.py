"""One item that is looked for: who waits for it, and whom to ask next (messages.md 3)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, DelayedCall, Link, Random
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import signer_of

MS_TO_WAIT_FOR_FETCH_REPLY = 1500
"""How long a peer has to answer before another one is asked (core Tracker.cpp)."""
MAX_REBUILD_FETCH_LIST = 10
"""The pause after all were asked grows up to so many times that (core Tracker.cpp)."""

_BUCKET_MS = MS_TO_WAIT_FOR_FETCH_REPLY // 3
"""Peers whose round trips differ by less are as good as each other (core Tracker.cpp)."""
_UNKNOWN_PING_MS = 24 * 60 * 60 * 1000
"""Round trip of a peer that was not heard yet (core Peer.cpp)."""
_MAX_RECORDS = 32
"""Envelopes whose senders are looked up before each question; core looks at all of them."""
_MIN_ENVELOPE = 52
"""Bytes until the pledges of a statement: what is shorter is no SCP_MESSAGE."""
_MAX_ASKED = 1000
"""Peers asked in one round: those that come and go must not make it endless."""
_MINUTE_SECONDS = 60
_MAX_PACED = 1024
"""Peers of which it is remembered when they were asked: the last ones."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Waiter:
    """Somebody who wants an item.

    Two are equal if they wait on behalf of the same envelope, so that it waits but once; without
    one, each is equal to itself alone.

    :ivar slot: the slot on whose behalf; None for an application, whom no purge of slots touches.
    :ivar envelope: the body of the SCP_MESSAGE that names the item: who sent us that is asked
        first. None when there is none.
    :ivar deliver: called with the item, once, or never after the waiter was withdrawn.
    """

    slot: int | None
    envelope: bytes | None
    deliver: Callable[[Message], None]

    @property
    def size(self) -> int:
        """Bytes that are kept because it waits."""
        return 0 if self.envelope is None else len(self.envelope)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Waiter):
            return NotImplemented
        if self.envelope is None:
            return self is other
        return self.envelope == other.envelope

    def __hash__(self) -> int:
        return id(self) if self.envelope is None else hash(self.envelope)


class QuestionPace:
    """Says whether a peer may be asked now: so many questions in any minute, to each.

    The minute slides, so that no fixed one, wherever the peer lets it begin, has more.

    What a single signer names may exist or not. So each signer has a fifth of the questions for
    that, and all signers together three fifths: who invents hashes keeps us from asking for its
    own, and never for what several name. What was found counts against nobody.

    :param per_minute: at least 1.
    """

    def __init__(self, per_minute: int) -> None:
        if per_minute < 1:
            raise ValueError(f"a peer is asked at least once a minute, not {per_minute} times")
        self._per_minute = per_minute
        self._per_signer = max(1, per_minute // 5)
        self._of_single_signers = max(1, per_minute * 3 // 5)
        self._asked: BoundedDict[PeerId, deque[_Question]] = BoundedDict(_MAX_PACED)

    def may_ask(self, peer_id: PeerId, now: float, signer: bytes | None = None) -> bool:
        """Tell what :meth:`allow` would answer, and note nothing."""
        asked = self._asked.get(peer_id)
        if asked is None:
            return True
        while asked and now - asked[0].at >= _MINUTE_SECONDS:
            asked.popleft()
        if len(asked) >= self._per_minute:
            return False
        if signer is None:
            return True
        of_single_signers = [question for question in asked if question.signer is not None]
        return (
            len(of_single_signers) < self._of_single_signers
            and sum(question.signer == signer for question in of_single_signers) < self._per_signer
        )

    def allow(
        self, peer_id: PeerId, now: float, signer: bytes | None = None, item_hash: bytes = b""
    ) -> bool:
        """Tell whether the peer may be asked now, and if so take it for done.

        :param signer: who names the item, if that is one node alone; None for many, and for what
            an application wants.
        """
        if not self.may_ask(peer_id, now, signer):
            return False
        asked = self._asked.get(peer_id)
        if asked is None:
            asked = deque()
        asked.append(_Question(now, signer, item_hash))
        self._asked.put(peer_id, asked)
        return True

    def forgive(self, item_hash: bytes) -> None:
        """Note that an item was found: who named it named it not in vain."""
        for peer_id in self._asked:
            asked = self._asked.get(peer_id)
            for index, question in enumerate(asked or ()):
                if asked and question.item_hash == item_hash and question.signer is not None:
                    asked[index] = question._replace(signer=None)


class _Question(NamedTuple):
    at: float
    signer: bytes | None
    item_hash: bytes


class Anycast:
    """The peers as those whom one question may be put to, best first.

    :param links: all authenticated peers, as they are at any time.
    :param knows: returns who has, or was sent, the SCP_MESSAGE with that body.
    :param pace: of the questions put here.
    """

    def __init__(
        self,
        links: Mapping[PeerId, Link],
        knows: Callable[[bytes], Collection[PeerId]],
        clock: Clock,
        random: Random,
        pace: QuestionPace,
    ) -> None:
        self._links = links
        self._knows = knows
        self._clock = clock
        self._random = random
        self._pace = pace

    def note_found(self, item_hash: bytes) -> None:
        """Hold it against nobody that an item was asked for."""
        self._pace.forgive(item_hash)

    @property
    def has_peers(self) -> bool:
        """Whether there is anybody, asked before or not."""
        return bool(self._links)

    def candidates(
        self,
        asked: Mapping[PeerId, bool],
        envelopes: Iterable[bytes],
        signer: bytes | None = None,
        item_hash: bytes = b"",
    ) -> Iterator[tuple[Link, bool]]:
        """Yield whom to ask, and whether the peer should know; who is yielded counts as asked.

        Those who know one of the envelopes come first, if they were not asked or were not known
        to know then; the others if they were not asked (core Tracker.cpp). Who is over the limit
        of questions is passed over.

        :param asked: who was asked in this round, and whether each was thought to know.
        :param signer: who alone names the item; see :class:`QuestionPace`.
        """
        now = self._clock.seconds()
        free = {
            peer_id: link
            for peer_id, link in self._links.items()
            if not asked.get(peer_id, False) and self._pace.may_ask(peer_id, now, signer)
        }
        knowing = self._that_know(free, envelopes)
        others = [
            link
            for peer_id, link in free.items()
            if peer_id not in knowing and peer_id not in asked
        ]
        for link in self._best_first(
            [free[peer_id] for peer_id in free if peer_id in knowing], signer, item_hash
        ):
            yield link, True
        for link in self._best_first(others, signer, item_hash):
            yield link, False

    def _that_know(
        self, peers: Collection[PeerId], envelopes: Iterable[bytes]
    ) -> Collection[PeerId]:
        left, found = set(peers), set()
        for envelope in islice(envelopes, _MAX_RECORDS):
            if not left:
                break
            for peer_id in self._knows(envelope):
                if peer_id in left:
                    left.remove(peer_id)
                    found.add(peer_id)
        return found

    def _best_first(
        self, links: list[Link], signer: bytes | None, item_hash: bytes
    ) -> Iterator[Link]:
        """Yield them by their round trips, and those that are as good as each other at random."""
        random = self._random.random
        for _, _, link in sorted(
            ((_bucket(link), random(), link) for link in links), key=lambda entry: entry[:2]
        ):
            if self._pace.allow(link.peer_id, self._clock.seconds(), signer, item_hash):
                yield link


def _bucket(link: Link) -> int:
    ping_ms = link.ping_ms
    return (_UNKNOWN_PING_MS if ping_ms is None else ping_ms) // _BUCKET_MS


class Tracker:
    """The search for one item: asks one peer after the other, in rounds, until it is cancelled.

    :param question: what is sent to a peer.
    :ivar waiting_bytes: what the waiters make us keep.
    :ivar has_found_nobody: whether nobody could be asked at all when it was last tried.
    """

    def __init__(
        self,
        item_hash: bytes,
        question: Message,
        *,
        anycast: Anycast,
        clock: Clock,
        metrics: OverlayMetrics,
    ) -> None:
        self.item_hash = item_hash
        self.waiting_bytes = 0
        self.has_found_nobody = False
        self._question = question
        self._anycast = anycast
        self._clock = clock
        self._metrics = metrics
        self._waiters: dict[Waiter, None] = {}
        self._signers: Counter[bytes | None] = Counter()  # of the waiters; None for applications
        self._asked: dict[PeerId, bool] = {}
        self._last_asked: PeerId | None = None
        self._last_seen_slot = 0
        self._num_rebuilds = 0
        self._since = clock.seconds()
        self._timer: DelayedCall | None = None
        self._is_cancelled = False

    # Who waits.

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiters

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiters

    @property
    def waiting_envelopes(self) -> list[bytes]:
        """The envelopes that need the item, the newest last."""
        return [waiter.envelope for waiter in self._waiters if waiter.envelope is not None]

    @property
    def last_seen_slot_index(self) -> int:
        """The greatest slot that wanted the item since the last reset; 0 if none did."""
        return self._last_seen_slot

    def reset_last_seen_slot_index(self) -> None:
        """Forget which slots wanted it."""
        self._last_seen_slot = 0

    def listen(self, waiter: Waiter) -> bool:
        """Let somebody wait; False when an equal one waits already."""
        if waiter.slot is not None:
            self._last_seen_slot = max(self._last_seen_slot, waiter.slot)
        if waiter in self._waiters:
            return False
        self._waiters[waiter] = None
        self._signers[_signer(waiter)] += 1
        self.waiting_bytes += waiter.size
        return True

    def discard(self, waiter: Waiter) -> bool:
        """Let somebody wait no more; False when nobody equal waited."""
        if waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        self._forget(waiter)
        return True

    def pop(self) -> Waiter:
        """Remove and return who came last.

        :raises KeyError: when nobody waits.
        """
        waiter, _ = self._waiters.popitem()
        self._forget(waiter)
        return waiter

    def clear_envelopes_outside_range(
        self, min_slot: int | None, max_slot: int | None, keep: int
    ) -> bool:
        """Remove who waits on behalf of other slots than these and ``keep``; tell if any remain.

        :param min_slot: the first that stays; None for no such bound.
        :param max_slot: the last one, likewise.
        """
        for waiter in list(self._waiters):
            slot = waiter.slot
            if slot is None or slot == keep:
                continue
            is_below = min_slot is not None and slot < min_slot
            if is_below or (max_slot is not None and slot > max_slot):
                self.discard(waiter)
        return not self.is_empty

    # Whom it is asked of.

    @property
    def last_asked_peer(self) -> PeerId | None:
        """Whose answer is awaited."""
        return self._last_asked

    def get_duration(self) -> float:
        """Return for how many seconds it has been looked for."""
        return self._clock.seconds() - self._since

    def doesnt_have(self, peer_id: PeerId) -> None:
        """Ask the next one at once, if it is this peer's answer that is awaited."""
        if self._last_asked == peer_id:
            self.try_next_peer()

    def try_next_peer(self) -> None:
        """Ask the best peer that is left; when there is none, begin anew after a pause.

        Whether a peer was asked is remembered by its id: one that comes back is not asked twice
        in a round. Core goes by connections.
        """
        if self._is_cancelled:
            return
        if self._last_asked is not None:
            self._metrics.item_fetcher_next_peer.inc()
            self._last_asked = None
        self.has_found_nobody = False
        # What is to be waited for is set before anything is sent: the answer may come at once.
        self._wait(1)
        if len(self._asked) < _MAX_ASKED:
            newest_first = (
                waiter.envelope for waiter in reversed(self._waiters) if waiter.envelope is not None
            )
            for link, is_knowing in self._anycast.candidates(
                self._asked, newest_first, self._only_signer(), self.item_hash
            ):
                if self._ask(link, is_knowing) or self._is_cancelled:
                    return
        self._restart()

    def _only_signer(self) -> bytes | None:
        """Return the node that alone names the item; None when others do, or an application."""
        return next(iter(self._signers)) if len(self._signers) == 1 else None

    def _forget(self, waiter: Waiter) -> None:
        self.waiting_bytes -= waiter.size
        signer = _signer(waiter)
        self._signers[signer] -= 1
        if not self._signers[signer]:
            del self._signers[signer]

    def cancel(self) -> None:
        """Look for it no more."""
        self._is_cancelled = True
        self.has_found_nobody = False
        self._last_asked = None
        self._last_seen_slot = 0
        self._stop_timer()

    def _ask(self, link: Link, is_knowing: bool) -> bool:
        """Put the question to one peer; who does not get it was not asked."""
        peer_id = link.peer_id
        was_asked = peer_id in self._asked
        self._asked[peer_id] = is_knowing
        self._last_asked = peer_id
        if link.send(self._question):
            return True
        self._last_asked = None
        if was_asked:
            self._asked[peer_id] = False  # else it would not have been asked again
        else:
            self._asked.pop(peer_id, None)
        return False

    def _restart(self) -> None:
        """Pause: the longer, the more rounds there were; those without anybody count for none."""
        self.has_found_nobody = not self._asked or not self._anycast.has_peers
        self._asked.clear()
        if not self.has_found_nobody:
            self._num_rebuilds += 1
            self._wait(min(MAX_REBUILD_FETCH_LIST, self._num_rebuilds))

    def _wait(self, times: int) -> None:
        self._stop_timer()
        seconds = times * MS_TO_WAIT_FOR_FETCH_REPLY / 1000
        self._timer = self._clock.callLater(seconds, self.try_next_peer)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _signer(waiter: Waiter) -> bytes | None:
    envelope = waiter.envelope
    return None if envelope is None or len(envelope) < _MIN_ENVELOPE else signer_of(envelope)
