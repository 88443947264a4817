"""A surveyor's run of requests: who is asked when, and what was answered (messages.md 5.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from stellar_overlay.error import CryptoError, SurveyError, SurveyRefusal, XdrError
from stellar_overlay.gossip.survey_results import SurveyResults
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, DelayedCall
from stellar_overlay.wire.survey_body import (
    SurveyKeys,
    SurveyResponse,
    TimeSlicedPeerData,
    TopologyResponse,
    decode_topology,
)

REQUESTS_AT_A_TIME = 10
"""As many as a node relays for one surveyor in one ledger."""
MAX_LOOKED_AT = 100
"""How many of those who wait are looked at: the first of them may all have to wait on."""
MAX_NODES = 20_000
"""How many nodes one run may ask."""

Pages = tuple[int, int]
Ask = Callable[[PeerId, Pages, bytes], bool]


class SurveyRun:
    """Asks the nodes of a queue, ten at a time, and keeps their latest answers.

    Ten may leave at once; then, after a pause, the next ten. What has been learnt stays until the
    next run.

    :param ask: sends a request, given the node, the indices of its pages and the key to encrypt
        for; False when it cannot be asked now.
    :param may_go_on: tells whether the survey is still reporting.
    :param token_bytes: returns so many random bytes.
    """

    def __init__(
        self,
        own: PeerId,
        ask: Ask,
        may_go_on: Callable[[], bool],
        *,
        clock: Clock,
        pause_seconds: float,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self._own = own
        self._ask = ask
        self._may_go_on = may_go_on
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._token_bytes = token_bytes
        self._keys: SurveyKeys | None = None
        self._queue: dict[PeerId, Pages] = {}
        self._topology: dict[PeerId, TopologyResponse | None] | None = None
        self._asked_again: set[PeerId] = set()
        self._bad: dict[PeerId, None] = {}
        self._asked: set[PeerId] = set()  # since the pause began, and silent so far
        self._left = 0
        self._pause: DelayedCall | None = None

    @property
    def is_running(self) -> bool:
        """Whether requests are sent and answers taken."""
        return self._keys is not None

    @property
    def answered(self) -> int:
        """How many other nodes' latest question is answered."""
        others = dict(self._topology or {})
        others.pop(self._own, None)
        return sum(response is not None for response in others.values())

    def start(self, own_report: TopologyResponse) -> None:
        """Begin anew, with what we have to say of ourselves."""
        self._keys = SurveyKeys(self._token_bytes(32))
        self._queue.clear()
        self._bad.clear()
        self._asked_again.clear()
        self._topology = {self._own: own_report}

    def stop(self) -> None:
        """Ask nobody any more, take no answer, and forget the key."""
        self._keys = None
        self._asked.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def add(self, node: PeerId, pages: Pages) -> bool:
        """Queue a node; False when it is queued or was asked just now, or is ourselves.

        An earlier answer is forgotten now: who wants it has read it.

        :raises SurveyError: when too many nodes were asked already.
        """
        assert self._topology is not None
        if node in self._queue or node in self._asked or node == self._own:
            return False
        if node not in self._topology and len(self._topology) >= MAX_NODES:
            raise SurveyError(f"one run asks at most {MAX_NODES} nodes")
        self._bad.pop(node, None)
        if self._topology.get(node) is not None:
            self._asked_again.add(node)
        self._topology[node] = None
        self._queue[node] = pages
        self._top_off()
        return True

    def take(self, response: SurveyResponse) -> SurveyRefusal | None:
        """Take an answer whose signature is good; tell what is wrong with it."""
        node = PeerId(response.surveyed)
        self._asked.discard(node)
        if self._keys is None or self._topology is None or node not in self._topology:
            return SurveyRefusal.TOO_LATE
        try:
            answer = decode_topology(self._keys.open(response.encrypted_body))
        except (CryptoError, XdrError):
            self._bad[node] = None
            return SurveyRefusal.BAD_BODY
        self._bad.pop(node, None)
        earlier = self._topology[node]
        self._topology[node] = answer if earlier is None else _merged(earlier, answer)
        return None

    def results(self) -> SurveyResults:
        """Return where the run stands; what it has learnt if it is over."""
        return SurveyResults(
            in_progress=self.is_running,
            backlog=tuple(self._queue),
            bad_response_nodes=tuple(sorted(self._bad)),
            topology=None if self._topology is None else dict(self._topology),
            asked_again=frozenset(self._asked_again),
        )

    @property
    def backlog(self) -> int:
        """How many nodes wait to be asked."""
        return len(self._queue)

    @property
    def bad_responses(self) -> int:
        """How many nodes' latest answer was of no use."""
        return len(self._bad)

    def _top_off(self) -> None:
        """Ask as many as may be asked now, and come back after the pause if there are more."""
        if not self._may_go_on():
            self.stop()
        if self._keys is None:
            return
        if self._pause is None:
            self._left = REQUESTS_AT_A_TIME
            self._pause = self._clock.callLater(self._pause_seconds, self._pause_is_over)
        for node in list(islice(self._queue, MAX_LOOKED_AT)):
            if not self._left:
                break
            if self._ask(node, self._queue[node], self._keys.public):
                del self._queue[node]
                self._asked.add(node)
                self._left -= 1

    def _pause_is_over(self) -> None:
        self._pause = None
        self._asked.clear()
        if self._queue:
            self._top_off()


def _merged(earlier: TopologyResponse, later: TopologyResponse) -> TopologyResponse:
    """Return two answers of a node as one, with each peer once; it was asked for two pages."""
    return replace(
        later,
        inbound=_joined(earlier.inbound, later.inbound),
        outbound=_joined(earlier.outbound, later.outbound),
    )


def _joined(
    earlier: Sequence[TimeSlicedPeerData], later: Sequence[TimeSlicedPeerData]
) -> tuple[TimeSlicedPeerData, ...]:
    return tuple({peer.node: peer for peer in (*earlier, *later)}.values())
