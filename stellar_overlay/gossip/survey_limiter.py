"""Which survey messages are recent enough, and few enough, to be looked at (messages.md 5.4).

A survey message goes to every node, and each checks its signature. So what can be told without
that is told first, and how many signatures are checked in vain is limited as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stellar_overlay.error import SurveyRefusal
from stellar_overlay.wire.survey_body import (
    TOPOLOGY_COMMAND,
    SurveyCollecting,
    SurveyRequest,
    SurveyResponse,
)

LEDGERS_BEFORE_IGNORE = 6
"""How far a message's ledger may be from ours, either way (core SurveyManager.cpp:121)."""
MAX_SURVEYORS_PER_LEDGER = 10
MAX_REQUESTS_PER_LEDGER = 10
"""Nodes that one surveyor may ask in one ledger (core SurveyManager.cpp:123)."""
MAX_CHECKS_PER_LEDGER = 10
"""Signatures checked in vain for one surveyor and ledger; core sets no limit."""
CHECKS_FOR_NEW_LINKS = 8
"""How many of these a link may cause that is not :data:`KNOWN_SECONDS` old, lest whoever comes,
forges and is dropped uses them all up: then the true message would not be looked at."""
KNOWN_SECONDS = 60
MAX_SURVEYORS_CHECKED = 100
"""For how many surveyors in one ledger; more than ten, as others can misuse their names."""
MAX_OWN_REQUESTS_PER_LEDGER = 10_000
"""Nodes that we may ask ourselves in one; core sets no limit."""

_NEAR = sorted(range(-LEDGERS_BEFORE_IGNORE, LEDGERS_BEFORE_IGNORE + 1), key=abs)
"""The whole window, from the middle on: others may be a few ledgers ahead or behind."""
_MAX_LEDGER = 2**32 - 1

Validate = Callable[[], SurveyRefusal | None]
"""Says what else is wrong with a message: its nonce, then its signature. Called last, once."""


@dataclass(slots=True, eq=False)
class _Ledger:
    """What came that names one ledger.

    :ivar requests: by surveyor, then by the node that it asks: whether that one has answered.
    :ivar checks: by surveyor, how many signatures were checked and not given back.
    :ivar verified: the good signatures of START and STOP, each with what it signs.
    """

    requests: dict[bytes, dict[bytes, bool]] = field(default_factory=dict)
    checks: dict[bytes, int] = field(default_factory=dict)
    verified: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class SurveyLimiterStats:
    """How much is remembered: of how many ledgers, and what."""

    ledgers: int
    requests: int
    answered: int
    checks: int


class SurveyLimiter:
    """What was asked, answered and checked in the ledgers around ours, and whether more may be.

    Whoever checks a signature asks :meth:`spend_check` right before, and tells
    :meth:`refund_check` right after if it was good and made a request be recorded or a response
    be accepted. So ten requests and their answers cost nothing, while no more than ten checks for
    one surveyor and ledger are of a START or STOP, or come to nothing.

    :param own: our key. We may always ask, among however many surveyors, and more than others.
    :param tracking_ledger: returns the ledger that consensus has reached.
    """

    def __init__(self, own: bytes, tracking_ledger: Callable[[], int]) -> None:
        self._own = own
        self._tracking_ledger = tracking_ledger
        self._ledgers: dict[int, _Ledger] = {}

    @property
    def stats(self) -> SurveyLimiterStats:
        """How much is remembered now."""
        ledgers = self._ledgers.values()
        answers = [
            is_answered
            for ledger in ledgers
            for asked in ledger.requests.values()
            for is_answered in asked.values()
        ]
        return SurveyLimiterStats(
            ledgers=len(ledgers),
            requests=len(answers),
            answered=sum(answers),
            checks=sum(sum(ledger.checks.values()) for ledger in ledgers),
        )

    def check_collecting(
        self, message: SurveyCollecting, validate: Validate
    ) -> SurveyRefusal | None:
        """Tell what is wrong with a START or STOP, None if nothing is."""
        if not self._is_recent(message.ledger_num):
            return SurveyRefusal.STALE_LEDGER
        return validate()

    def add_request(self, request: SurveyRequest, validate: Validate) -> SurveyRefusal | None:
        """Record a request, or tell what is wrong with it (core SurveyMessageLimiter.cpp)."""
        refusal = self._refusal_of_request(request) or validate()
        if refusal is None:
            requests = self._open(request.ledger_num).requests
            requests.setdefault(request.surveyor, {})[request.surveyed] = False
        return refusal

    def ledger_to_ask_in(self, surveyor: bytes, surveyed: bytes) -> int | None:
        """Return a ledger in which others will take a request; None when there is none now.

        That is ours, or one near it if ours has too many requests or one for the same node
        already: it may stand still, or the surveyor may have been quick.
        """
        tracking = self._tracking_ledger()
        for ledger_num in (tracking + away for away in _NEAR):
            ledger = self._ledgers.get(ledger_num)
            asked = {} if ledger is None else ledger.requests.get(surveyor, {})
            is_free = len(asked) < MAX_REQUESTS_PER_LEDGER and surveyed not in asked
            if is_free and 0 <= ledger_num <= _MAX_LEDGER:
                return ledger_num
        return None

    def add_response(self, response: SurveyResponse, validate: Validate) -> SurveyRefusal | None:
        """Note that a request is answered, or tell what is wrong with the answer.

        Its command is not looked at (messages.md 9, case 56).
        """
        if not self._is_recent(response.ledger_num):
            return SurveyRefusal.STALE_LEDGER
        ledger = self._ledgers.get(response.ledger_num)
        asked = None if ledger is None else ledger.requests.get(response.surveyor)
        if asked is None or response.surveyed not in asked:
            return SurveyRefusal.UNASKED
        if asked[response.surveyed]:
            return SurveyRefusal.REPEATED
        refusal = validate()
        if refusal is None:
            asked[response.surveyed] = True
        return refusal

    def spend_check(self, surveyor: bytes, ledger_num: int, link_seconds: float) -> bool:
        """Count a signature that is about to be checked; False when it must not be.

        :param surveyor: of the message, whoever is said to have signed it.
        :param link_seconds: for how long there has been the link that it came on.
        """
        if not self._is_recent(ledger_num):
            return False
        checks = self._open(ledger_num).checks
        spent = checks.get(surveyor, 0)
        has_room = spent or len(checks) < MAX_SURVEYORS_CHECKED
        is_known = link_seconds >= KNOWN_SECONDS
        if spent >= (MAX_CHECKS_PER_LEDGER if is_known else CHECKS_FOR_NEW_LINKS) or not has_room:
            return False
        checks[surveyor] = spent + 1
        return True

    def refund_check(self, surveyor: bytes, ledger_num: int) -> None:
        """Give back a check that was spent, because its request or response is a good one.

        That of a START or STOP is never given back, but see :meth:`note_verified`.
        """
        ledger = self._ledgers.get(ledger_num)
        if ledger is None:
            return  # it is forgotten with all else of that ledger
        spent = ledger.checks.pop(surveyor, 0)
        if spent > 1:
            ledger.checks[surveyor] = spent - 1

    def note_verified(self, message: SurveyCollecting) -> None:
        """Note that the signature of a START or STOP was checked and is good."""
        ledger = self._ledgers.get(message.ledger_num)
        if ledger is not None:
            ledger.verified.add(message.signature + message.signed)

    def was_verified(self, message: SurveyCollecting) -> bool:
        """Tell whether that was noted: who sends one again and again makes us check it once."""
        ledger = self._ledgers.get(message.ledger_num)
        return ledger is not None and message.signature + message.signed in ledger.verified

    def forget_requests(self) -> None:
        """Forget who asked whom: the survey that they were about is over."""
        for ledger in self._ledgers.values():
            ledger.requests.clear()

    def clear_old_ledgers(self, ledger: int) -> None:
        """Forget what is too old, now that consensus has reached ``ledger``."""
        oldest = ledger - LEDGERS_BEFORE_IGNORE
        self._ledgers = {number: kept for number, kept in self._ledgers.items() if number >= oldest}

    def _is_recent(self, ledger_num: int) -> bool:
        return abs(ledger_num - self._tracking_ledger()) <= LEDGERS_BEFORE_IGNORE

    def _refusal_of_request(self, request: SurveyRequest) -> SurveyRefusal | None:
        """Tell what is wrong with a request, without a look at its nonce and signature."""
        if request.command_type != TOPOLOGY_COMMAND:
            return SurveyRefusal.UNKNOWN_COMMAND
        if not self._is_recent(request.ledger_num):
            return SurveyRefusal.STALE_LEDGER
        ledger = self._ledgers.get(request.ledger_num)
        if ledger is None:
            return None
        asked = ledger.requests.get(request.surveyor)
        if asked is None:
            # We take room ourselves, but need none.
            if len(ledger.requests) >= MAX_SURVEYORS_PER_LEDGER and request.surveyor != self._own:
                return SurveyRefusal.TOO_MANY_SURVEYORS
            return None
        is_own = request.surveyor == self._own
        if len(asked) >= (MAX_OWN_REQUESTS_PER_LEDGER if is_own else MAX_REQUESTS_PER_LEDGER):
            return SurveyRefusal.TOO_MANY_REQUESTS
        if request.surveyed in asked:
            return SurveyRefusal.REPEATED
        return None

    def _open(self, ledger_num: int) -> _Ledger:
        """Return what is remembered of a ledger within the window; there are 13 at most."""
        if ledger_num not in self._ledgers:
            self._ledgers = {
                number: kept for number, kept in self._ledgers.items() if self._is_recent(number)
            }
            self._ledgers[ledger_num] = _Ledger()
        return self._ledgers[ledger_num]
