"""The node as a Twisted application: ``twist stellar-overlay``, ``twistd``, and the .tac files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger, LogLevel
from twisted.python import usage

from stellar_overlay.error import ConfigError, OverlayError
from stellar_overlay.log_levels import LOG_LEVELS, Level, filter_what_begins, filtered
from stellar_overlay.node_service import NodeService
from stellar_overlay.option_values import (
    check_endpoint,
    check_writable,
    passphrase,
    version_range,
    version_text,
    whole_number,
)

if TYPE_CHECKING:
    from stellar_overlay.admin.server import AdminHttp
    from stellar_overlay.config import OverlayConfig
    from stellar_overlay.node.home_domains import HomeDomains
    from stellar_overlay.node.manager import OverlayManager

MODES = ("observe", "relay")
OFF = "off"
EX_USAGE = 64
"""The exit status of wrong options, as ``twist`` has it (sysexits.h)."""


class Options(usage.Options):
    """The options of a node; one that is given wins over the files."""

    synopsis = "[options]"
    longdesc = (
        "Runs a node of the Stellar overlay: finds, authenticates and keeps peers. It takes no "
        "part in consensus and keeps no ledger."
    )
    optFlags: ClassVar = [
        [
            "allow-private",
            None,
            "dial, share and accept loopback and private addresses (private networks, tests)",
        ],
    ]
    optParameters: ClassVar = [
        ["network", None, None, "testnet, pubnet, or a passphrase in full [default: testnet]"],
        ["listen", None, None, "endpoint for peers, or off [default: tcp:11625]"],
        [
            "http",
            None,
            None,
            "endpoint for the admin HTTP, or off [default: tcp:11626:interface=127.0.0.1]",
        ],
        ["database", None, None, "sqlite3://PATH [default: sqlite3://stellar-overlay.db]"],
        [
            "seed-file",
            None,
            None,
            "file with the node's seed, made if absent [default: a new identity each time]",
        ],
        ["mode", None, None, "observe, or relay what verifies [default: relay]"],
        ["overlay-version", None, None, "MIN..MAX, announced and accepted [default: 38..42]"],
        ["flood-rate-limit", None, None, "new transactions and adverts per second; 0 is no limit"],
        ["ready-file", None, None, "write {node, pid, peer_port, http_port} to it when listening"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.config_files: list[str] = []
        self.peers: list[str] = []
        self.preferred_peers: list[str] = []
        self.home_domains: list[str] = []
        self.http_hosts: list[str] = []
        self.config: OverlayConfig
        self.seed: str | None = None

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802
        """Read the options of a command line.

        Run by ``twist`` or ``twistd``, which would bury what is wrong in the whole usage text, this
        ends the process with one line.

        :raises UsageError: when nobody else runs us.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            program = "twistd" if "twistd" in os.path.basename(sys.argv[0]) else "twist"
            _refuse(f"{error}; {program} stellar-overlay --help lists the options")

    def parseArgs(self, *arguments: str) -> None:  # noqa: N802
        if arguments:
            raise usage.UsageError(f"unexpected {arguments[0]!r}: options begin with --")

    def opt_config(self, path: str) -> None:
        """TOML file with stellar-core's keys; may be repeated, later files win"""
        self.config_files.append(path)

    def opt_peer(self, address: str) -> None:
        """known peer, HOST[:PORT]; may be repeated [default: the network's well-known hosts]"""
        self.peers.append(address)

    def opt_preferred_peer(self, address: str) -> None:
        """preferred peer, HOST[:PORT]; may be repeated"""
        self.preferred_peers.append(address)

    def opt_home_domain(self, domain: str) -> None:
        """add the validators of a domain's stellar.toml as known peers; may be repeated"""
        self.home_domains.append(domain)

    def opt_http_host(self, name: str) -> None:
        """further Host name that the admin HTTP accepts for changes; may be repeated"""
        self.http_hosts.append(name)

    def opt_version(self) -> NoReturn:
        """print our version and the overlay versions, and exit"""
        print(version_text())
        sys.exit(0)

    def postOptions(self) -> None:
        try:
            self._check()
        except OverlayError as error:
            raise usage.UsageError(str(error)) from None

    def _check(self) -> None:
        self._set_log_levels()
        if self["mode"] not in (None, *MODES):
            raise ConfigError(f"--mode: must be one of {', '.join(MODES)}, not {self['mode']!r}")
        for name in ("listen", "http"):
            if self[name] not in (None, OFF):
                check_endpoint(f"--{name}", self[name])
        if self["ready-file"] is not None:
            check_writable("--ready-file", self["ready-file"])
            self["ready-file"] = os.path.abspath(self["ready-file"])  # twistd may go elsewhere
        self._check_home_domains()
        self._check_http_hosts()
        self.config = self._read_config()
        self.seed = self._read_seed()

    def _set_log_levels(self) -> None:
        """Let our levels decide on our part of the log, and the runner's own on all the rest."""
        runner = self.parent
        if runner is None or "fileLogObserverFactory" not in runner:
            LOG_LEVELS.configure()
            if runner is not None:  # twistd
                filter_what_begins()
            return
        level = Level(runner["logLevel"].name)
        LOG_LEVELS.configure(default=level)
        make_observer = runner["fileLogObserverFactory"]
        runner["fileLogObserverFactory"] = lambda file: filtered(make_observer(file), level)
        runner["logLevel"] = LogLevel.debug  # what we let through, twist shall let through, too

    def _check_home_domains(self) -> None:
        if self.home_domains:
            from stellar_overlay.node.home_domains import check_domain

            for domain in self.home_domains:
                try:
                    check_domain(domain)
                except ConfigError as error:
                    raise ConfigError(f"--home-domain: {error}") from None

    def _check_http_hosts(self) -> None:
        if self.http_hosts:
            from stellar_overlay.admin.guard import host_name

            for name in self.http_hosts:
                try:
                    host_name(name)
                except ConfigError as error:
                    raise ConfigError(f"--http-host: {error}") from None

    def _read_config(self) -> OverlayConfig:
        from stellar_overlay.config import OverlayConfig

        try:
            config = OverlayConfig.from_toml_files(self.config_files)
        except ConfigError as error:
            raise ConfigError(f"--config: {error}") from None
        overrides = {
            "known_peers": ("peer", self.peers or None),
            "preferred_peers": ("preferred-peer", self.preferred_peers or None),
            "network_passphrase": ("network", passphrase(self["network"])),
            "database": ("database", self["database"]),
            "mode": ("mode", self["mode"]),
            "listen_enabled": ("listen", None if self["listen"] is None else self["listen"] != OFF),
            "allow_private": ("allow-private", True if self["allow-private"] else None),
            "flood_rate_limit_per_sec": (
                "flood-rate-limit",
                whole_number("--flood-rate-limit", self["flood-rate-limit"]),
            ),
        }
        for attribute, (option, value) in overrides.items():
            if value is not None:
                config.override(attribute, value, f"option --{option}")
        if self["overlay-version"] is not None:
            low, high = version_range("--overlay-version", self["overlay-version"])
            config.override("overlay_min_version", low, "option --overlay-version")
            config.override("overlay_version", high, "option --overlay-version")
        config.add_public_network()
        return config.checked()

    def _read_seed(self) -> str | None:
        """Return the seed to use; None makes a new identity. A new file is written last of all."""
        from stellar_overlay.identity import create_seed_file, read_seed_file

        path = self["seed-file"]
        if path is None:
            return self.config.node_seed or None
        try:
            return read_seed_file(path) if os.path.lexists(path) else create_seed_file(path)
        except OverlayError as error:
            raise ConfigError(f"--seed-file: {error}") from None


def makeService(options: Options) -> NodeService:
    """Return the service of a node with these options."""
    from stellar_overlay.identity import LocalNode
    from stellar_overlay.node.manager import OverlayManager

    config = options.config
    log = Logger(namespace="stellar_overlay")
    for warning in config.warnings:
        log.warn("{text}", text=warning)  # "warning" means something else to trial
    if options.seed is None:
        log.info("a new identity, for this run only; --seed-file keeps one")
    node = LocalNode(
        config.network_passphrase,
        options.seed,
        overlay_min_version=config.overlay_min_version,
        overlay_version=config.overlay_version,
        listening_port=config.listen_port,
    )
    listen = options["listen"]
    overlay = OverlayManager(
        config,
        node,
        database=config.database,
        listen=None if listen == OFF else listen,  # None follows the configuration
    )
    service = NodeService(overlay, options["ready-file"], _admin_http(options, overlay))
    if options.home_domains:
        _home_domains(options, overlay).setServiceParent(service)
    return service


def _admin_http(options: Options, overlay: OverlayManager) -> AdminHttp | None:
    """Return what answers the operator; None when nothing shall."""
    where = _http_endpoint(options)
    if where is None:
        return None
    from twisted.internet import reactor

    from stellar_overlay.admin.server import AdminHttp

    running: Any = reactor
    endpoint = serverFromString(running, where)
    return AdminHttp(overlay, endpoint, hosts=options.http_hosts, clock=running)


def _http_endpoint(options: Options) -> str | None:
    """Return where the operator is answered, as an endpoint: what is given wins over files."""
    given: str | None = options["http"]
    if given is not None:
        return None if given == OFF else given
    config = options.config
    if not config.http_port:
        return None
    return f"tcp:{config.http_port}" + ("" if config.public_http_port else ":interface=127.0.0.1")


def _home_domains(options: Options, overlay: OverlayManager) -> HomeDomains:
    from twisted.internet import reactor

    from stellar_overlay.node.home_domains import HomeDomains, fetch_validators

    running: Any = reactor
    return HomeDomains(
        options.home_domains,
        partial(fetch_validators, reactor=running),
        overlay.add_known_peers,
        running,
        allow_private=options.config.allow_private,
    )


def application(config_files: Iterable[str] = (), arguments: Iterable[str] = ()) -> object:
    """Return the application of a .tac file.

    :param arguments: options as on the command line.
    """
    from twisted.application.service import Application

    options = Options()
    files = [part for path in config_files for part in ("--config", path)]
    try:
        options.parseOptions([*files, *arguments])
    except usage.UsageError as error:
        _refuse(str(error))
    filter_what_begins()
    app = Application("stellar-overlay")
    makeService(options).setServiceParent(app)
    return app


def _refuse(line: str) -> NoReturn:
    """End a process that is not to start at all."""
    print(f"stellar-overlay: {line}", file=sys.stderr, flush=True)
    raise SystemExit(EX_USAGE)
