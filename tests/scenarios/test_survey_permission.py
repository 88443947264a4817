"""For whom a node answers and relays surveys, and to whom it passes them on (DECISIONS 18)."""

from __future__ import annotations

from typing import Any

from stellar_overlay.config import QuorumSet
from stellar_overlay.error import SurveyRefusal
from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.scp import prepare
from tests.scenarios.surveys import (
    INACTIVE,
    REQUEST,
    RESPONSE,
    START,
    STOP,
    OneNodeTestCase,
    collecting,
    forged_signature,
    request,
    response,
)
from tests.scenarios.traffic import (
    SCP,
    Neighbour,
    a_quorum_set,
    a_value,
    externalized,
    validator,
)


class PermissionTests(OneNodeTestCase):
    """Case 41 and DECISIONS 18: for whom anything is done at all."""

    def assert_surveyed_by(self, *nodes: LocalNode) -> None:
        """Check that all are permitted, and that the first one can survey the node."""
        for one in nodes:
            self.assertTrue(self.node.survey.surveyor_permitted(one.peer_id))
        self.assert_relayed(collecting(START, nodes[0]))
        self.assert_relayed(collecting(STOP, nodes[0]))
        (answer,) = self.say(request(nodes[0], self.own))
        self.assertEqual(answer.type, RESPONSE)

    def assert_deaf_to(self, *nodes: LocalNode) -> None:
        """Check that nobody's START, STOP or REQUEST does anything; not even its signature."""
        before = self.checks(self.node), self.answers_heard()
        for by in nodes:
            said = [
                collecting(START, by),
                collecting(STOP, by),
                collecting(START, by, sign=forged_signature),
                request(by, self.own),
                request(by, validator(60).peer_id),
            ]
            self.assert_ignored(SurveyRefusal.NOT_PERMITTED, *said)
        self.assertEqual((self.checks(self.node), self.answers_heard()), before)

    def answers_heard(self) -> int:
        """Return how many answers went out to either peer."""
        return len(self.speaker.bodies(RESPONSE)) + len(self.listener.bodies(RESPONSE))

    def test_nobody(self) -> None:
        """Without SURVEYOR_KEYS and quorum set: not even for those whom it hears and follows."""
        self.begin_at(surveyor_keys=[])
        self.speaker.flood(*(externalized(1, by=by) for by in (50, 51)))
        self.network.advance(1)
        self.assert_deaf_to(validator(50), validator(51), self.speaker.auth.local_node)
        self.assert_phases([self.node], INACTIVE, None)

    def test_its_own(self) -> None:
        """It may survey, whoever else may not."""
        self.begin_at(surveyor_keys=[])
        self.node.survey.start_collecting(5)
        self.network.advance(0)
        self.assertEqual(len(self.listener.bodies(START)), 1)
        self.assert_deaf_to(validator(50))

    def test_only_those_of_the_list(self) -> None:
        """A list is all there is, with a quorum set or without."""
        quorum_set = QuorumSet(1, (validator(0).peer_id.strkey,))
        for settings in (dict[str, Any](), dict[str, Any](quorum_set=quorum_set)):
            self.begin_at(others=[validator(51)], **settings)
            self.assert_deaf_to(validator(0), validator(1), self.speaker.auth.local_node)
            self.assert_surveyed_by(validator(51), self.surveyor)
            self.assert_deaf_to(validator(0))
            self.again()

    def test_the_quorum(self) -> None:
        """Without a list: those whom the quorum set names, inner sets too, and nobody else."""
        inner = QuorumSet(1, (validator(2).peer_id.strkey,))
        quorum_set = QuorumSet(2, (validator(0).peer_id.strkey,), (inner,))
        self.begin_at(surveyor_keys=[], quorum_set=quorum_set)
        self.assert_deaf_to(validator(1), validator(50))
        self.assert_surveyed_by(validator(2), validator(0))

    def test_the_quorum_of_the_quorum(self) -> None:
        """Whom the trusted name may not survey: the configured nodes alone may (DECISIONS 18)."""
        quorum_set = QuorumSet(1, (validator(0).peer_id.strkey,))
        self.begin_at(surveyor_keys=[], quorum_set=quorum_set)
        named = a_quorum_set(0, 5)
        self.assert_deaf_to(validator(5))
        self.speaker.items[quorum_set_hash(named.body)] = named
        self.speaker.flood(
            prepare(validator(0), 1, a_value(), quorum_set_hash=quorum_set_hash(named.body))
        )
        self.network.advance(1)
        self.assert_deaf_to(validator(5))
        self.assert_surveyed_by(validator(0))

    def test_an_observer(self) -> None:
        """It relays no flood traffic, but surveys, and answers them (DECISIONS 18)."""
        self.begin_at(mode="observe")
        self.speaker.flood(prepare(validator(0), 1, a_value()))
        self.report()
        self.assertEqual(self.listener.bodies(SCP), [])
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked, response(asked, validator(60)))
        self.assertEqual([one.type for one in self.say(self.ask())], [RESPONSE])


class RelayTests(OneNodeTestCase):
    """To everybody once, and never back."""

    def test_nobody_hears_it_twice(self) -> None:
        """All four go to who did not send them; from two at once they go to neither."""
        self.begin_at()
        third = self.call("third", Neighbour)
        for message in (self.start(), self.stop(), asked := self.ask(validator(60).peer_id)):
            self.assert_relayed(message)
            third.send(message)
            self.network.advance(0.1)
        answer = response(asked, validator(60))
        self.speaker.send(answer)
        third.send(answer)
        self.network.advance(0.1)
        self.assertEqual(self.listener.bodies(RESPONSE), [answer.body])
        self.assertEqual(
            [one for kind in (START, STOP, REQUEST) for one in self.speaker.bodies(kind)], []
        )
        self.assertEqual(len(third.bodies(REQUEST)), 1)
        self.assert_linked(third)
