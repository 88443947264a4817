"""Which nodes a configuration means: their names, the validators, and the quorum sets of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from stellar_overlay.error import ConfigError, InvalidKey
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, PeerId

OURSELVES = "$self"
"""Our own node, where SURVEYOR_KEYS names it: a node without a name for its seed may, too."""
QUALITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
"""How much a home domain is trusted, the least first (core Config.cpp:679)."""

MAX_QUORUM_DEPTH = 4
MAX_QUORUM_NODES = 1000
"""Of a quorum set, the root being at depth 0 (core QuorumSetUtils.cpp:16 and 48)."""


@dataclass(frozen=True, kw_only=True)
class Validator:
    """An entry of VALIDATORS: a node that votes, and the organisation that runs it.

    :raises ConfigError: when a field is not what it should be; the key is checked later.
    """

    public_key: str
    home_domain: str
    name: str = ""
    quality: str = "LOW"
    address: str = ""

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            if not isinstance(text, str):
                raise ConfigError(f"{name.upper()} must be a text, not {text!r}")
        if self.quality not in QUALITIES:
            qualities = ", ".join(QUALITIES)
            raise ConfigError(f"QUALITY must be one of {qualities}, not {self.quality!r}")
        if not self.public_key or not self.home_domain:
            raise ConfigError("PUBLIC_KEY and HOME_DOMAIN must not be empty")


@dataclass(frozen=True)
class QuorumSet:
    """So many of these nodes and inner sets must agree. Nodes are ``G…`` texts."""

    threshold: int
    validators: tuple[str, ...] = ()
    inner_sets: tuple[QuorumSet, ...] = ()

    @classmethod
    def of_percent(
        cls, percent: int, validators: Iterable[str], inner_sets: Iterable[QuorumSet]
    ) -> QuorumSet:
        """Return the set in which ``percent`` of the entries, rounded up, must agree.

        The arithmetic is core's (Config.cpp:652-657).

        :raises ValueError: when there are no entries.
        """
        everybody = cls(1, tuple(validators), tuple(inner_sets))
        if not everybody.size:
            raise ValueError("a quorum set needs validators or inner sets")
        return replace(everybody, threshold=1 + (everybody.size * percent - 1) // 100)

    @property
    def size(self) -> int:
        """How many entries may agree; an inner set is one."""
        return len(self.validators) + len(self.inner_sets)

    @property
    def nodes(self) -> Iterator[str]:
        """All validators, at every depth."""
        yield from self.validators
        for inner in self.inner_sets:
            yield from inner.nodes

    def map(self, rename: Callable[[str], str]) -> QuorumSet:
        """Return the same set of other texts for the nodes."""
        inner_sets = tuple(inner.map(rename) for inner in self.inner_sets)
        return QuorumSet(self.threshold, tuple(map(rename, self.validators)), inner_sets)

    def simplified(self) -> QuorumSet:
        """Return the set without inner sets of a single entry (core QuorumSetUtils.cpp:137)."""
        inner_sets = [inner.simplified() for inner in self.inner_sets]
        wrapped = [s for s in inner_sets if s.threshold == s.size == 1 and s.validators]
        kept = [s for s in inner_sets if s not in wrapped]
        validators = (*self.validators, *(s.validators[0] for s in wrapped))
        if self.threshold == len(kept) == 1 and not validators:
            return kept[0]
        return QuorumSet(self.threshold, validators, tuple(kept))

    def check(self) -> None:
        """Refuse what no node may use (core QuorumSetUtils.cpp:57).

        :raises ValueError: saying what is wrong.
        """
        self._check_shape(0)
        nodes = list(self.nodes)
        if len(nodes) > MAX_QUORUM_NODES:
            raise ValueError(f"at most {MAX_QUORUM_NODES} nodes, not {len(nodes)}")
        if len(nodes) > len(set(nodes)):
            raise ValueError("a node is in it twice")

    def _check_shape(self, depth: int) -> None:
        if depth > MAX_QUORUM_DEPTH:
            raise ValueError(f"more than {MAX_QUORUM_DEPTH} levels of inner sets")
        if not 1 <= self.threshold <= self.size:
            raise ValueError(f"the threshold {self.threshold} is not in 1..{self.size}")
        for inner in self.inner_sets:
            inner._check_shape(depth + 1)


def generated_quorum_set(validators: Iterable[Validator]) -> QuorumSet | None:
    """Return the quorum set that core makes of VALIDATORS (Config.cpp:2688-2771), None of none.

    A majority inside each home domain; two thirds of the domains of one quality, or all of the
    critical ones; those of each lower quality together count as one more domain.
    """
    domains: dict[tuple[str, str], list[str]] = defaultdict(list)
    for validator in validators:
        domains[validator.quality, validator.home_domain].append(validator.public_key)
    result: QuorumSet | None = None
    for quality in QUALITIES:
        inner_sets = [
            QuorumSet(len(keys) - (len(keys) - 1) // 2, tuple(keys))
            for (its_quality, _), keys in sorted(domains.items())
            if its_quality == quality
        ]
        if inner_sets:
            inner_sets += [result] if result else []
            count = len(inner_sets)
            threshold = count if quality == "CRITICAL" else count - (count - 1) // 3
            result = QuorumSet(threshold, (), tuple(inner_sets))
    return result.simplified() if result else None


class NodeNames:
    """The names of nodes: one name for a node, one node for a name (core Config.cpp:2466-2531)."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}

    def add(self, key: str, name: str) -> str:
        """Name the node with this ``G…`` key, and return the key; without a name only check it.

        :raises InvalidKey: when ``key`` is none.
        :raises ConfigError: when the node has another name, or the name another node.
        """
        PeerId.from_strkey(key)
        if name and self._names.setdefault(key, name) != name:
            raise ConfigError(f"{key} is named both {self._names[key]!r} and {name!r}")
        if name and self._keys.setdefault(name, key) != key:
            raise ConfigError(f"{name!r} names both {self._keys[name]} and {key}")
        return key

    def resolve(self, text: str) -> str:
        """Return the key meant by ``G…``, ``G… name`` (which names it) or ``$name``.

        :raises InvalidKey: when it is none of these.
        """
        if text.startswith("$"):
            if text[1:] not in self._keys:
                raise InvalidKey(f"no node is named {text[1:]!r}")
            return self._keys[text[1:]]
        return self.add(*id_and_name(text))

    def resolve_all(
        self, entries: Iterable[PeerId | str], *, keep: str | None = None
    ) -> list[PeerId | str]:
        """Return the keys, each once; ``keep`` stays as it is if no node has that name."""

        def resolved(entry: str) -> str:
            is_kept = entry == keep and entry[1:] not in self._keys
            return entry if is_kept else self.resolve(entry)

        return list(dict.fromkeys(resolved(str(entry)) for entry in entries))

    def as_dict(self) -> dict[str, str]:
        """Return the names by key."""
        return dict(self._names)


def id_and_name(text: str) -> tuple[str, str]:
    """Split ``G… name`` at blanks; what follows the name is a remark, as in core."""
    words = text.split()
    return words[0] if words else "", words[1] if len(words) > 1 else ""


def public_validators(passphrase: str) -> list[Validator]:
    """Return the validators of a public network, and none of any other."""
    validators = []
    domain = ""
    for line in _VALIDATORS.get(passphrase, "").splitlines():
        key, *rest = line.split(maxsplit=2)
        if not rest:
            domain = key
            continue
        address, name = rest
        validators.append(
            Validator(
                public_key=key, home_domain=domain, name=name, quality="HIGH", address=address
            )
        )
    return validators


# A home domain, then its validators: key, address, name. The testnet as in core's
# docs/stellar-core_testnet.cfg; core ships none for the public network, so that one as in
# stellar/quickstart pubnet/core/etc/stellar-core.cfg of 16 July 2026 (tier 1: 7 domains).
_VALIDATORS = {
    TESTNET_PASSPHRASE: """\
testnet.stellar.org
GDKXE2OZMJIPOSLNA6N6F2BVCI3O777I2OOC4BV7VOYUEHYX7RTRYA7Y core-testnet1.stellar.org sdftest1
GCUCJTIYXSOXKBSNFGNFWW5MUQ54HKRPGJUTQFJ5RQXZXNOLNXYDHRAP core-testnet2.stellar.org sdftest2
GC2V2EFSXN6SQTWVYA5EPJPBWWIMSD2XQNKUOHGEKB535AQE2I6IXV2Z core-testnet3.stellar.org sdftest3""",
    PUBNET_PASSPHRASE: """\
lobstr.co
GCFONE23AB7Y6C5YZOMKUKGETPIAJA4QOYLS5VNS4JHBGKRZCPYHDLW7 v1.stellar.lobstr.co LOBSTR 1
GCB2VSADESRV2DDTIVTFLBDI562K6KE3KMKILBHUHUWFXCUBHGQDI7VL v2.stellar.lobstr.co LOBSTR 2
GA5STBMV6QDXFDGD62MEHLLHZTPDI77U3PFOD2SELU5RJDHQWBR5NNK7 v5.stellar.lobstr.co LOBSTR 5
publicnode.org
GCVJ4Z6TI6Z2SOGENSPXDQ2U4RKH3CNQKYUHNSSPYFPNWTLGS6EBH7I2 bootes.publicnode.org Boötes
GBLJNN3AVZZPG2FYAYTYQKECNWTQYYUUY2KVFN2OUKZKBULXIXBZ4FCT hercules.publicnode.org Hercules
GCIXVKNFPKWVMKJKVK2V4NK7D4TC6W3BUMXSIJ365QUAXWBRPPJXIR2Z lyra.publicnode.org Lyra
stellar.blockdaemon.com
GAAV2GCVFLNN522ORUYFV33E76VPC22E72S75AQ6MBR5V45Z5DWVPWEU stellar-full-validator1.bdnodes.net BD 1
GAVXB7SBJRYHSG6KSQHY74N7JAFRL4PFVZCNWW2ARI6ZEKNBJSMSKW7C stellar-full-validator2.bdnodes.net BD 2
GAYXZ4PZ7P6QOX7EBHPIZXNWY4KCOBYWJCA4WKWRKC7XIUS3UJPT6EZ4 stellar-full-validator3.bdnodes.net BD 3
stellar.creit.tech
GBPLJDBFZO2H7QQH7YFCH3HFT6EMC42Z2DNJ2QFROCKETAPY54V4DCZD alpha.validator.stellar.creit.tech Alpha
GDDANSYOYSY5EPSFHBRPCLX6XMHPPLIMHVIDXG6IPQLVVLRI2BN4HMH3 beta.validator.stellar.creit.tech Beta
GBF7QOLFPTHUEDUPTT4ZTULDTA3QXDIO75JHKJN2IYD7YGQLYUTR75BT gamma.validator.stellar.creit.tech Gamma
stellar.withobsrvr.com
GDRCZ4IPJR7V3HK4GR45CRTE72SDAOZUF2TDBQ5E5IGWC4KM5TSKU2LS core-live-1.nodeswithobsrvr.co OBSRVR 1
GA2PU4UGMLSFUXGZATHPTDXXX7FOHBAQC57RSJCQUN72WFKTD6CEPQSF core-live-2.nodeswithobsrvr.co OBSRVR 2
GACM6GIRMLXBBZIYJXBDTAEYZ2GJP3JJP5G5K4WDPBS6QFHPJNK6S2FB core-live-3.nodeswithobsrvr.co OBSRVR 3
www.franklintempleton.com
GARYGQ5F2IJEBCZJCBNPWNWVDOFK7IBOHLJKKSG2TMHDQKEEC6P4PE4V stellar1.franklintempleton.com FT SCV 1
GCMSM2VFZGRPTZKPH5OABHGH4F3AVS6XTNJXDGCZ3MKCOSUBH3FL6DOB stellar2.franklintempleton.com FT SCV 2
GA7DV63PBUUWNUFAF4GAZVXU2OZMYRATDLKTC7VTCG7AU4XUPN5VRX4A stellar3.franklintempleton.com FT SCV 3
www.stellar.org
GCGB2S2KGYARPVIA37HYZXVRM2YZUEXA6S33ZU5BUDC6THSB62LZSTYH core-live-a.stellar.org SDF 1
GCM6QMP3DLRPTAZW2UZPCPX2LF3SXWXKPMP3GKFZBDSF3QZGV2G5QSTK core-live-b.stellar.org SDF 2
GABMKJM6I25XI4K7U6XWMULOUQIQ27BCTMLS6BYYSOWKTBUXVRJSXHYQ core-live-c.stellar.org SDF 3""",
}
