"""What came of the demo: each check in words and in figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from twisted.internet.defer import Deferred, DeferredList

from stellar_overlay.error import DropReason, ErrorCode
from stellar_overlay.metrics import Counter
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.cli import shown
from stellar_overlay.tools.demo_journal import Flood, Journal, TxSet
from stellar_overlay.tools.demo_network import DEADLINE_SECONDS, Network
from stellar_overlay.tools.demo_traffic import FIRST_LEDGER, Traffic
from stellar_overlay.wire.message import Message


@dataclass
class Check:
    """One thing that the demo proves, in words and in figures."""

    ok: bool
    text: str
    figures: Mapping[str, object] = field(default_factory=dict)


def check_discovery(network: Network) -> Check:
    """Nodes that were told one address have found each other."""
    seed, nodes, links = network.nodes[0], len(network.nodes), len(network.links)
    seconds = network.seconds_to_find
    strangers = sum(seed not in link for link in network.links)
    if is_whole := network.is_whole:
        text = (
            f"{nodes} nodes found each other through one seed in {seconds} s: {links} links,"
            f" {strangers} of them between nodes that nobody had told of each other; whole without"
            " the seed"
        )
    else:
        text = (
            f"after {seconds} s not every node had {network.links_wanted} links, or some could not"
            f" reach the others without the seed ({links} links)"
        )
    figures = {"nodes": nodes, "links": links, "links_between_strangers": strangers}
    return Check(is_whole, text, {**figures, "seconds": seconds})


def check_flood(network: Network, traffic: Traffic, journal: Journal) -> Check:
    """Every statement was new to every node once, over no link twice, and the ledgers closed."""
    flood = journal.statements
    ledgers = traffic.ledger - FIRST_LEDGER + 1
    closed = max(0, traffic.followed - FIRST_LEDGER + 1)
    strange = flood.strange + journal.astray
    expected = {
        f"{traffic.statements_wanted} statements": flood.broadcast == traffic.statements_wanted > 0,
        f"heard {flood.expected} times{_lacking(network, flood)}": flood.heard == flood.expected,
        f"{ledgers} ledgers": closed == ledgers,
        **_faultless(flood, strange),
    }
    validators = _number_of(len(traffic.validators), "synthetic validator")
    text = (
        f"{_number_of(flood.broadcast, 'signed SCP statement')} of {validators} reached"
        f" {_each_other(network)}: {flood.heard} of {flood.expected}{_faults(flood, strange)};"
        f" {closed} of {_number_of(ledgers, 'ledger')} followed by all; {flood.duplicates}"
        " duplicates from other peers"
    )
    figures = {
        "validators": len(traffic.validators),
        "statements": flood.broadcast,
        "statements_expected": traffic.statements_wanted,
        "heard": flood.heard,
        "heard_expected": flood.expected,
        "ledgers": closed,
        "ledgers_expected": ledgers,
        "duplicates": flood.duplicates,
        **_fault_figures(flood, strange),
    }
    return judged(text, expected, figures)


def check_pull(network: Network, journal: Journal) -> Check:
    """Every node has every transaction, and got it because it had asked for it."""
    flood = journal.transactions
    adverts = _total(node.metrics.flood_advertised for node in network.nodes)
    demands = _total(node.metrics.flood_demanded for node in network.nodes)
    fulfilled = _total(node.metrics.flood_fulfilled for node in network.nodes)
    received = flood.heard + flood.duplicates
    expected = {
        f"all of them{_lacking(network, flood)}": flood.heard == flood.expected > 0,
        "none unsolicited": not journal.unsolicited and received <= demands,
        **_faultless(flood, flood.strange),
    }
    text = (
        f"{_number_of(flood.broadcast, 'signed transaction')} reached {_each_other(network)}:"
        f" {flood.heard} of {flood.expected}, byte for byte, {journal.unsolicited}"
        f" unsolicited{_faults(flood, flood.strange)}; {adverts} adverts, {demands} demands,"
        f" {fulfilled} fulfilled; median {_milliseconds(journal.pull_seconds)} ms from the first"
        " advert"
    )
    figures = {
        "transactions": flood.broadcast,
        "received": flood.heard,
        "received_expected": flood.expected,
        "received_again": flood.duplicates,
        "unsolicited": journal.unsolicited,
        **_fault_figures(flood, flood.strange),
        "adverts": adverts,
        "demands": demands,
        "fulfilled": fulfilled,
        "median_ms": _milliseconds(journal.pull_seconds),
    }
    return judged(text, expected, figures)


async def check_fetch(network: Network, traffic: Traffic, journal: Journal) -> Check:
    """Every node has every transaction set, which one alone had made, and the quorum set."""
    made = journal.tx_sets_made
    followed = _tx_sets(journal)
    have = sum(
        _has(node, item_hash, tx_set) for item_hash, tx_set in followed for node in network.nodes
    )
    wanted = len(followed) * len(network.nodes)
    fetched, to_fetch = journal.tx_sets_got, made * (len(network.nodes) - 1)
    fetchers = {node for _, tx_set in followed for node in tx_set.got}
    slowest = _milliseconds([max(journal.fetch_seconds, default=0.0)])
    informed = await _count_knowing(network.nodes, traffic.validators[0].quorum_set_hash)
    expected = {
        f"{wanted} kept": have == wanted > 0,
        f"{to_fetch} fetched": fetched == to_fetch > 0,
        "the quorum set everywhere": informed == len(network.nodes),
    }
    text = (
        f"{_number_of(made, 'transaction set')}, made by one node each, fetched by the others:"
        f" {fetched} of {to_fetch}, by {_number_of(len(fetchers), 'node')}; {have} of {wanted}"
        f" kept; median {_milliseconds(journal.fetch_seconds)} ms from the first statement, longest"
        f" {slowest} ms; {informed} know the validators' quorum set"
    )
    figures = {
        "tx_sets": made,
        "fetched": fetched,
        "fetched_expected": to_fetch,
        "nodes": len(fetchers),
        "kept": have,
        "kept_expected": wanted,
        "median_ms": _milliseconds(journal.fetch_seconds),
        "max_ms": slowest,
        "know_quorum_set": informed,
    }
    return judged(text, expected, figures)


def check_auth(network: Network, forger: ScriptedPeer) -> Check:
    """Every link is authenticated at both ends, and the forger was refused."""
    ends, wanted = network.count_ends(), 2 * len(network.links)
    refused = forger.error == (ErrorCode.ERR_AUTH, DropReason.UNEXPECTED_MAC.text.encode())
    text = f"{ends} of {wanted} link ends authenticated; a forged MAC was " + (
        "refused with ERR_AUTH" if refused else f"not refused with ERR_AUTH: {_fate(forger)}"
    )
    figures = {"nodes": len(network.nodes), "links": len(network.links), "ends": ends}
    return Check(0 < wanted == ends and refused, text, {**figures, "forger_refused": refused})


def check_flow_control(network: Network, journal: Journal) -> Check:
    """Every direct statement arrived, past the first grant, and no sender was beyond its grants."""
    sent, received = journal.sent.total(), journal.received.total()
    least = min((journal.received[way] for way in journal.sent), default=0)
    overruns = _total(node.metrics.drops[DropReason.AT_CAPACITY] for node in network.nodes)
    grant = network.nodes[0].config.peer_flood_reading_capacity
    expected = {
        "all of them": journal.sent == journal.received,
        f"more than {grant} each": least > grant,
        "0 overruns": not overruns,
    }
    text = (
        f"{received} of {sent} direct SCP messages arrived, at least {least} per link and direction"
        f" with first grants of {grant}; {overruns} overruns"
    )
    figures = {"sent": sent, "received": received, "least": least, "overruns": overruns}
    return judged(text, expected, figures)


def judged(text: str, expected: dict[str, bool], figures: Mapping[str, object]) -> Check:
    """Return a check that is good if all is that is expected, and says what is not."""
    is_ok = all(expected.values())
    if not is_ok:
        missed = [words for words, is_so in expected.items() if not is_so]
        text += f" (expected: {', '.join(missed)})"
    return Check(is_ok, text, figures)


def _each_other(network: Network) -> str:
    others = len(network.nodes) - 1
    return "the other node" if others == 1 else f"each of the {others} other nodes"


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _faultless(flood: Flood, strange: int) -> dict[str, bool]:
    """Return what must hold of whatever is flooded."""
    return {
        "each new once": not flood.misjudged,
        "none twice over a link": not flood.repeated,
        "none but those": not strange,
    }


def _fault_figures(flood: Flood, strange: int) -> dict[str, int]:
    return {"misjudged": flood.misjudged, "repeated": flood.repeated, "strange": strange}


def _faults(flood: Flood, strange: int) -> str:
    """Say what else went wrong, if anything did."""
    faults = {
        "twice over a link": flood.repeated,
        "not known again, or taken for known": flood.misjudged,
        "that nobody had broadcast": strange,
    }
    return "".join(f", {count} {what}" for what, count in faults.items() if count)


def _lacking(network: Network, flood: Flood) -> str:
    """Say which nodes lack something, if any do."""
    lacking = [
        f"{node.local_node.peer_id.short} has {flood.had_by[number]}"
        for number, node in enumerate(network.nodes)
        if flood.had_by[number] < flood.broadcast
    ]
    return f"; of {flood.broadcast} {', '.join(lacking)}" if lacking else ""


def _total(counters: Iterable[Counter]) -> int:
    return sum(counter.get() for counter in counters)


def _milliseconds(seconds: Iterable[float]) -> float:
    """Return the median in milliseconds; 0 of nothing."""
    times = list(seconds)
    return round(1000 * median(times), 1) if times else 0.0


def _tx_sets(journal: Journal) -> list[tuple[bytes, TxSet]]:
    """Return those that are followed still."""
    found = ((item_hash, journal.tx_sets.get(item_hash)) for item_hash in journal.tx_sets)
    return [(item_hash, tx_set) for item_hash, tx_set in found if tx_set is not None]


def _has(node: OverlayManager, item_hash: bytes, tx_set: TxSet) -> bool:
    """Tell whether a node has a transaction set at hand, without asking anybody."""
    found: list[Message] = []
    fetching = Deferred.fromCoroutine(node.fetch_tx_set(item_hash))
    fetching.addCallbacks(found.append, lambda _: None)
    fetching.cancel()
    return [message.body for message in found] == [tx_set.message.body]


async def _count_knowing(nodes: Iterable[OverlayManager], quorum_set_hash: bytes) -> int:
    """Return how many nodes have a quorum set, or get it in time."""
    answers = await DeferredList(
        [
            Deferred.fromCoroutine(node.fetch_quorum_set(quorum_set_hash, DEADLINE_SECONDS))
            for node in nodes
        ],
        consumeErrors=True,
    )
    return sum(is_known for is_known, _ in answers)


def _fate(forger: ScriptedPeer) -> str:
    """Return what became of a peer that should have been told ERR_AUTH."""
    if not forger.auth.is_authenticated:
        return "it could not even shake hands"
    if forger.error is not None:
        code, text = forger.error
        return f"it was told {shown(text.decode(errors='replace'))!r}, code {code}"
    if forger.is_closed:
        return "the link was closed without a word"
    return f"the link was still open after {DEADLINE_SECONDS} s"
