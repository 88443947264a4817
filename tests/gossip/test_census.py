"""The counts of links stay right, whatever is told of them and how often."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress, network_group
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.gossip import admission as admission_module
from stellar_overlay.gossip.admission import MAX_OUTBOUND_PER_GROUP, SILENT_SECONDS, Admission
from stellar_overlay.gossip.census import Census, Stage
from stellar_overlay.identity import PeerId
from tests.gossip.links import OWN, FakeLink, at, exactly, node

HOSTS = ("192.0.2.1", "192.0.2.2", "198.51.100.1", None)
NODES = tuple(node(number) for number in (1, 2, 3, 200, 201))
PREFERRED = frozenset({node(2), node(201)})
CALLERS_PER_HOST = 2
LIMITS = exactly(2, 2, outbound_pending=3, inbound_pending=4)


class NaiveModel:
    """The same rules over one plain table, counted anew each time."""

    def __init__(self) -> None:
        self.stage: dict[FakeLink, str] = {}
        self.ids: dict[FakeLink, PeerId] = {}
        self.dials: list[ResolvedPeerAddress] = []
        self.dropped: list[tuple[FakeLink, DropReason]] = []

    def open(self, link: FakeLink) -> None:
        self.stage.setdefault(link, "pending")

    def remove(self, link: FakeLink) -> None:
        if link in self.stage:
            self.stage[link] = "closing"

    def forget(self, link: FakeLink) -> None:
        self.stage.pop(link, None)

    def admit(self, link: FakeLink, peer_id: PeerId, now: float) -> bool:
        """Settle and admit; tell whether nobody was refused."""
        other = self.of(peer_id)
        if other is not None:
            is_crossed = link.we_called_remote != other.we_called_remote
            is_first = is_crossed and link.we_called_remote == (peer_id < OWN)
            if not is_first and now - other.last_read < SILENT_SECONDS:
                return False
            self.drop(other, DropReason.ALREADY_CONNECTED)
        if self.stage.get(link, "closing") == "closing":
            return False
        if self.stage[link] == "authenticated":
            return True
        peers = self.having("authenticated", link.we_called_remote)
        if len(peers) >= 2:
            plain = [peer for peer in peers if self.ids[peer] not in PREFERRED]
            if peer_id not in PREFERRED or not plain:
                return False
            self.drop(min(plain, key=self.ids.__getitem__), DropReason.PREFERRED_SELECTED)
        self.stage[link], self.ids[link] = "authenticated", peer_id
        return True

    def drop(self, link: FakeLink, reason: DropReason) -> None:
        self.dropped.append((link, reason))
        self.remove(link)
        if link.is_abrupt:
            self.forget(link)

    def of(self, peer_id: PeerId) -> FakeLink | None:
        peers = [link for link in self.having("authenticated") if self.ids[link] == peer_id]
        return peers[0] if peers else None

    def having(self, stage: str, is_outbound: bool | None = None) -> list[FakeLink]:
        return [
            link
            for link, its_stage in self.stage.items()
            if its_stage == stage and is_outbound in (None, link.we_called_remote)
        ]

    def may_accept(self, host: str | None) -> bool:
        callers = [*self.having("pending", False), *self.having("closing", False)]
        same = [link for link in callers if link.remote is not None and link.remote.host == host]
        return len(callers) < 4 and (host is None or len(same) < CALLERS_PER_HOST)

    def may_dial_group(self, host: str) -> bool:
        links = [*self.having("pending", True), *self.having("authenticated", True)]
        remotes = [
            link.remote
            for link in links
            if self.stage[link] == "pending" or self.ids[link] not in PREFERRED
        ]
        others = [remote for remote in (*remotes, *self.dials) if remote is not None]
        groups = [network_group(other.host) for other in others]
        return groups.count(network_group(host)) < MAX_OUTBOUND_PER_GROUP


def make_links(admission: Admission) -> list[FakeLink]:
    """Return links of both directions, some of which end abruptly when dropped."""
    return [
        FakeLink(
            we_called_remote=bool(number % 2),
            remote=None if host is None else at(host, 40_000 + number),
            admission=admission,
            is_abrupt=number % 3 == 0,
        )
        for number, host in enumerate(HOSTS * 3)
    ]


STEPS = st.tuples(
    st.sampled_from(
        ("open", "prove", "come", "come", "come", "remove", "forget", "begin", "end", "wait")
    ),
    st.integers(0, 3 * len(HOSTS) - 1),
    st.sampled_from(NODES),
    st.integers(1, 2),
)


class DriftTests(SynchronousTestCase):
    """Counters against counting (Y25, Y27)."""

    @settings(derandomize=True, max_examples=400)
    @given(st.lists(STEPS, max_size=60))
    def test_any_story(self, story: list[tuple[str, int, PeerId, int]]) -> None:
        """Opening, proving, evicting, replacing, ending: in any order, and again."""
        self.patch(admission_module, "MAX_PENDING_PER_IP", CALLERS_PER_HOST)
        admission = Admission(LIMITS, OWN, allow_private=False, preferred_ids=PREFERRED)
        model, links, now = NaiveModel(), make_links(admission), 0.0
        for what, number, peer_id, times in story:
            link = links[number]
            for _ in range(times):
                now += SILENT_SECONDS / 2 if what == "wait" else 0
                self.step(admission, model, what, link, peer_id, now)
                self.assert_alike(admission, model)
        for link in links:
            admission.remove(link)
            admission.forget(link)
            admission.forget(link)
        for address in model.dials:
            admission.end_dial(address)
        self.assert_empty(admission)

    def step(
        self,
        admission: Admission,
        model: NaiveModel,
        what: str,
        link: FakeLink,
        peer_id: PeerId,
        now: float,
    ) -> None:
        dial = at(link.remote.host if link.remote is not None else "203.0.113.1")
        simple: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
            "open": (admission.open, model.open),
            "remove": (admission.remove, model.remove),
            "forget": (admission.forget, model.forget),
        }
        if what in simple:
            for call in simple[what]:
                call(link)
        elif what == "begin":
            admission.begin_dial(dial)
            model.dials.append(dial)
        elif what == "end":
            admission.end_dial(dial)
            if dial in model.dials:
                model.dials.remove(dial)
        elif what in ("prove", "come"):
            if what == "come":
                self.step(admission, model, "open", link, peer_id, now)
            link.last_read = now if link not in admission.authenticated.values() else link.last_read
            link.peer_id = peer_id
            self.prove(admission, model, link, peer_id, now)

    def prove(
        self, admission: Admission, model: NaiveModel, link: FakeLink, peer_id: PeerId, now: float
    ) -> None:
        drops = {other: list(other.dropped) for other in model.stage}
        try:
            admission.settle_duplicate(link, peer_id, now)
            admission.admit(link, peer_id)
        except PeerViolation:
            is_admitted = False
        else:
            is_admitted = True
        model.dropped.clear()
        self.assertEqual(is_admitted, model.admit(link, peer_id, now))
        dropped = {other for other, before in drops.items() if other.dropped != before}
        self.assertEqual(dropped, {other for other, _ in model.dropped})

    def assert_alike(self, admission: Admission, model: NaiveModel) -> None:
        self.assertEqual(admission.pending, set(model.having("pending")))
        self.assertEqual(admission.closing, set(model.having("closing")))
        peers = {model.ids[link]: link for link in model.having("authenticated")}
        self.assertEqual(admission.authenticated, peers)
        dials = len(model.dials)
        self.assertEqual(admission.pending_outbound, len(model.having("pending", True)) + dials)
        self.assertEqual(admission.pending_inbound, len(model.having("pending", False)))
        outbound = model.having("authenticated", True)
        self.assertEqual(admission.authenticated_outbound, len(outbound))
        self.assertEqual(admission.authenticated_inbound, len(model.having("authenticated", False)))
        plain = [link for link in outbound if model.ids[link] not in PREFERRED]
        self.assertEqual(admission.non_preferred_outbound, len(plain))
        for host in HOSTS:
            remote = None if host is None else at(host)
            self.assertEqual(admission.may_accept(remote), model.may_accept(host))
            if remote is not None:
                self.assertEqual(
                    admission.may_dial_group(remote), model.may_dial_group(remote.host)
                )
        self.assertEqual(admission.may_dial(), len(model.having("pending", True)) + dials < 3)

    def assert_empty(self, admission: Admission) -> None:
        self.assertEqual((admission.pending, admission.closing), (set(), set()))
        self.assertEqual((admission.authenticated, admission.outbound), ({}, 0))
        self.assertEqual((admission.pending_inbound, admission.authenticated_inbound), (0, 0))
        census = admission._census
        self.assertEqual((census._entries, census._dials, census._groups), ({}, {}, {}))
        self.assertEqual(dict(census._callers), {})
        self.assertEqual(set(census._counts.values()) - {0}, set())


class CensusTests(SynchronousTestCase):
    """What the property does not show."""

    def test_a_link_is_counted_as_it_came(self) -> None:
        """What it says of itself later does not move the counts."""
        census, link = Census(), FakeLink(remote=at("192.0.2.1"))
        census.open(link)
        link.we_called_remote, link.remote = True, at("198.51.100.1")
        census.forget(link)
        self.assertEqual(census.count(Stage.PENDING, is_outbound=False), 0)
        self.assertEqual((census.callers_from("192.0.2.1"), census._groups), (0, {}))

    def test_two_dials_to_one_address(self) -> None:
        """Each is counted, and ends by itself."""
        census, address = Census(), at("192.0.2.1")
        for _ in range(2):
            census.begin_dial(address)
        census.end_dial(address)
        self.assertEqual(len(census.outbound_to(network_group("192.0.2.9"))), 1)
        self.assertEqual(census.count(Stage.DIALLING, is_outbound=True), 1)

    def test_a_link_of_which_nothing_was_heard(self) -> None:
        """It has no entry, and its end changes nothing."""
        census, link = Census(), FakeLink()
        census.close(link)
        census.forget(link)
        self.assertIsNone(census.entry(link))
        self.assertEqual(census.closing, set())

    def test_a_flood_is_not_a_scan(self) -> None:
        """One more connection is judged without a look at those that are there."""
        looks: list[FakeLink] = []

        class WatchedLink(FakeLink):
            def __hash__(self) -> int:
                looks.append(self)
                return id(self)

        admission = Admission(exactly(), OWN, allow_private=False)
        for number in range(200):
            admission.open(WatchedLink(remote=at(f"192.0.2.{number}")))
        looks.clear()
        self.assertTrue(admission.may_accept(at("192.0.2.250")))
        self.assertEqual(looks, [])
