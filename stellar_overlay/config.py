"""The configuration of a node.

An :class:`OverlayConfig` is filled freely: by keyword, by assignment, from files. Whoever uses it
takes a :meth:`~OverlayConfig.checked` copy, in which everything is as the table says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from typing import NoReturn

from stellar_overlay.address import PeerAddress
from stellar_overlay.config_nodes import (
    OURSELVES,
    NodeNames,
    QuorumSet,
    Validator,
    generated_quorum_set,
    id_and_name,
    public_validators,
)
from stellar_overlay.config_rules import QUORUM_SET, Setting, addresses_of, frozen
from stellar_overlay.config_table import (
    MIN_FLOOD_HEADROOM_BYTES,
    ConfigTable,
    row_of,
    settings,
    where,
)
from stellar_overlay.error import ConfigError, OverlayError
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, LocalNode, PeerId

__all__ = ["OverlayConfig", "QuorumSet", "Setting", "Validator", "settings"]

# The second must be at least so much more than the first; both 0 is what core calls automatic.
_ORDER = (
    ("target_outbound_peers", "max_outbound_peers", 0),
    ("target_outbound_peers", "max_inbound_peers", 0),
    ("flow_control_send_more_batch_size", "peer_flood_reading_capacity", 0),
    ("peer_flood_reading_capacity", "peer_reading_capacity", 1),
    (
        "flow_control_send_more_batch_size_bytes",
        "peer_flood_reading_capacity_bytes",
        MIN_FLOOD_HEADROOM_BYTES,
    ),
    ("overlay_min_version", "overlay_version", 0),
)


class OverlayConfig(ConfigTable):
    """What an operator can choose, and the ways to fill it in and to check it.

    For an operator: :meth:`from_toml_files`, then :meth:`override` for each option, then
    :meth:`add_public_network`, then :meth:`checked`.
    """

    @classmethod
    def testnet(cls) -> OverlayConfig:
        """Return the preset of the test network: its hosts and validators, not listening."""
        return cls._of_public_network(TESTNET_PASSPHRASE)

    @classmethod
    def pubnet(cls) -> OverlayConfig:
        """Return the preset of the public network: its hosts and validators, not listening."""
        return cls._of_public_network(PUBNET_PASSPHRASE)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> OverlayConfig:
        """Read a file with stellar-core's keys.

        :raises ConfigError: naming file, key, value and rule, in one line.
        """
        return cls.from_toml_files([path])

    @classmethod
    def from_toml_files(cls, paths: Iterable[str | os.PathLike[str]]) -> OverlayConfig:
        """Read files with stellar-core's keys; of a key that several have, the last one counts.

        :raises ConfigError: naming file, key, value and rule, in one line.
        """
        from stellar_overlay import config_toml  # only those who read files need it

        loaded = config_toml.load(paths, {row.name for row in settings()})
        config = cls()
        for row in settings():
            if row.name in loaded.values:
                setattr(config, row.attribute, loaded.values[row.name])
                config.sources[row.attribute] = loaded.sources[row.name]
        config.warnings = tuple(loaded.warnings)
        return config._normalised()

    def override(self, attribute: str, value: object, source: str) -> None:
        """Set an attribute from an option.

        :param source: where the value comes from, such as ``option --peer``.
        :raises ConfigError: naming source, value and rule.
        """
        row = row_of(attribute)
        setattr(self, attribute, row.rule.check(where(row, source), value))
        self.sources[attribute] = source

    def add_public_network(self) -> None:
        """Add the hosts and validators of the public network that the passphrase names, if any.

        Only where there are none; what a file or an option left empty stays empty.
        """
        validators = public_validators(self.network_passphrase)
        source = "the well-known nodes of this network"
        if validators and not (self.known_peers or "known_peers" in self.sources):
            self.known_peers = [PeerAddress.parse(v.address) for v in validators]
            self.sources["known_peers"] = source
        trusted = self.quorum_set or {"validators", "quorum_set"} & self.sources.keys()
        if validators and not trusted:
            self.validators = validators
            self.sources["validators"] = source

    def checked(self) -> OverlayConfig:
        """Return a frozen copy: peers are addresses, nodes are ``G…``, everything is in range.

        Nothing in it can be changed: its lists are tuples, its dicts read-only mappings.

        :raises ConfigError: naming attribute, key, value and rule.
        """
        config = self._normalised()
        config._check_order()
        checked = object.__new__(_CheckedConfig)
        vars(checked).update({name: frozen(value) for name, value in vars(config).items()})
        return checked

    @property
    def known_addresses(self) -> tuple[PeerAddress, ...]:
        """The known peers, read."""
        return tuple(addresses_of(self.known_peers))

    @property
    def preferred_addresses(self) -> tuple[PeerAddress, ...]:
        """The preferred peers, read."""
        return tuple(addresses_of(self.preferred_peers))

    @property
    def preferred_ids(self) -> frozenset[PeerId]:
        """The preferred peer keys of a checked configuration, read."""
        return frozenset(PeerId.from_strkey(str(key)) for key in self.preferred_peer_keys)

    @property
    def surveyor_ids(self) -> frozenset[PeerId]:
        """The surveyor keys of a checked configuration, read; without ``$self``."""
        return frozenset(
            PeerId.from_strkey(str(key)) for key in self.surveyor_keys if key != OURSELVES
        )

    @classmethod
    def _of_public_network(cls, passphrase: str) -> OverlayConfig:
        config = cls(network_passphrase=passphrase, listen_enabled=False)
        config.add_public_network()
        return config

    def _normalised(self) -> OverlayConfig:
        """Return a checked copy that can still be changed."""
        config = OverlayConfig()
        for row in settings():
            if row.attribute in vars(self):
                value = row.rule.check(self._where(row.attribute), vars(self)[row.attribute])
                setattr(config, row.attribute, value)
        config.warnings = self.warnings
        config.sources = dict(self.sources)
        config._resolve_nodes()
        return config

    def _resolve_nodes(self) -> None:
        """Put keys in the place of names; the order in which names become known is core's."""
        names = NodeNames()
        with self._blaming("node_names"):
            for key, name in self.node_names.items():
                names.add(key, name)
        with self._blaming("node_seed"):
            self._name_ourselves(names)
        with self._blaming("validators"):
            for validator in self.validators:
                names.add(validator.public_key, validator.name)
            if generated := generated_quorum_set(self.validators):
                generated.check()
        with self._blaming("preferred_peer_keys"):
            self.preferred_peer_keys = names.resolve_all(self.preferred_peer_keys)
        with self._blaming("surveyor_keys"):
            self.surveyor_keys = names.resolve_all(self.surveyor_keys, keep=OURSELVES)
        if "quorum_set" in vars(self):
            with self._blaming("quorum_set"):
                quorum_set = vars(self)["quorum_set"].map(names.resolve)
                self.quorum_set = QUORUM_SET.accept(quorum_set)
        self.node_names = names.as_dict()

    def _name_ourselves(self, names: NodeNames) -> None:
        """Take the name off the seed, for ``$self`` and the like."""
        if self.node_seed:
            seed, name = id_and_name(self.node_seed)
            names.add(LocalNode(self.network_passphrase, seed).peer_id.strkey, name)
            self.node_seed = seed

    def _check_order(self) -> None:
        """Check what settings demand of each other (core Config.cpp:2024-2067)."""
        for low, high, gap in _ORDER:
            least = getattr(self, low) + gap
            if getattr(self, high) < least and (getattr(self, low) or getattr(self, high)):
                raise ConfigError(
                    f"{self._where(low)} is {getattr(self, low)}, so {self._where(high)} "
                    f"must be at least {least}, not {getattr(self, high)}"
                )

    @contextmanager
    def _blaming(self, attribute: str) -> Iterator[None]:
        """Turn what goes wrong inside into a ConfigError that names this attribute."""
        try:
            yield
        except (OverlayError, ValueError) as error:
            rule = row_of(attribute).rule
            value = getattr(self, attribute)
            raise rule.refusal(self._where(attribute), value, str(error)) from None

    def _where(self, attribute: str) -> str:
        return where(row_of(attribute), self.sources.get(attribute))


class _CheckedConfig(OverlayConfig):
    """What :meth:`OverlayConfig.checked` returns."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign {name}: this configuration is in use")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete {name}: this configuration is in use")
