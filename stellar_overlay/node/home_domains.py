"""The validators that organisations publish under their domains (SEP-1 and SEP-20)."""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.address import PeerAddress
from stellar_overlay.config_rules import shown
from stellar_overlay.error import ConfigError, InvalidKey, InvalidPeerAddress, OverlayError
from stellar_overlay.identity import PeerId
from stellar_overlay.node.resolver import is_host_name, is_public_name

if TYPE_CHECKING:
    from twisted.web.iweb import IPolicyForHTTPS

PATH = "/.well-known/stellar.toml"
HTTPS_PORT = 443
FETCH_TIMEOUT_SECONDS = 10
MAX_FILE_BYTES = 100 * 1024
"""SEP-1: a stellar.toml has at most 100 KB."""
MAX_VALIDATORS = 100
"""Of one domain, that are taken."""
MAX_DOTS = 100
"""In a line: a key of n parts takes ``tomllib`` n² steps, and 100 KB of dots take it minutes."""
RETRY_STEP_SECONDS = 60
"""After the n-th failure in a row, a domain is asked again n times as many seconds later."""
MAX_RETRY_SECONDS = 3600


class HomeDomainError(OverlayError):
    """A domain does not say who its validators are; the text is one line, naming the domain."""

    retriable = True


@dataclass(frozen=True, kw_only=True)
class HomeDomainValidator:
    """One entry of VALIDATORS that has a HOST.

    :ivar name: DISPLAY_NAME or else ALIAS, as the server wrote it, cut to 100 characters; None
        if there is neither.
    """

    peer_id: PeerId
    address: PeerAddress
    name: str | None


Fetch = Callable[[str], Awaitable[Sequence[HomeDomainValidator]]]
"""Asks a domain; fails with :exc:`HomeDomainError`."""


def check_domain(domain: str) -> str:
    """Return a home domain in small letters: a plain host name, and a port if need be.

    :raises ConfigError: naming ``domain``, when it is anything else, such as a URL.
    """
    try:
        address = PeerAddress.parse(domain, HTTPS_PORT)
        is_good = ":" not in address.host and is_host_name(address.host)
    except InvalidPeerAddress:
        is_good = False
    if not is_good or domain.partition(":")[0].endswith("."):
        raise ConfigError(
            f'home domain {shown(domain)} must be a host name such as "example.org", nothing else'
        )
    return domain.lower()


async def fetch_validators(
    domain: str,
    *,
    reactor: Any,
    policy: IPolicyForHTTPS | None = None,
    timeout_seconds: float = FETCH_TIMEOUT_SECONDS,
    max_bytes: int = MAX_FILE_BYTES,
) -> tuple[HomeDomainValidator, ...]:
    """Return the validators in ``https://DOMAIN/.well-known/stellar.toml`` that have a HOST.

    Certificates are verified. Up to three redirects are followed, to HTTPS only, and only to
    public names or within the host itself.

    :param policy: whom to trust; None is the system's certificates.
    :param timeout_seconds: from the call to the last byte.
    :raises ConfigError: when ``domain`` is no host name.
    :raises HomeDomainError: when the file cannot be had, or says nothing about validators.
    """
    domain = check_domain(domain)
    from stellar_overlay.node import https_client  # heavy

    try:
        data = await https_client.get(
            f"https://{domain}{PATH}",
            reactor=reactor,
            policy=policy,
            timeout_seconds=timeout_seconds,
            max_bytes=max_bytes,
            may_follow=_may_follow,
        )
        return parse_validators(data)
    except (https_client.HttpsError, HomeDomainError) as error:
        raise HomeDomainError(f'home domain "{domain}": {error}') from error


def _may_follow(host: str) -> bool:
    """Tell whether a redirect may lead to ``host``: no number in any disguise, no local name."""
    has_letters = host.rpartition(".")[2][:1].isalpha()
    return has_letters and is_host_name(host) and is_public_name(host)


def parse_validators(data: bytes) -> tuple[HomeDomainValidator, ...]:
    """Read the VALIDATORS of a stellar.toml: the first hundred that are whole and have a HOST.

    Entries without a HOST are nothing to dial. Faulty ones are passed over as long as there is
    a good one.

    :raises HomeDomainError: when it is not TOML, has no VALIDATORS, or only faulty ones.
    """
    document = _parse_toml(data)
    entries = document.get("VALIDATORS")
    if not isinstance(entries, list) or not entries:
        raise HomeDomainError("its stellar.toml has no VALIDATORS")
    found: list[HomeDomainValidator] = []
    fault: HomeDomainError | None = None
    for entry in entries:
        if isinstance(entry, dict) and "HOST" not in entry:
            continue
        try:
            found.append(_validator(entry))
        except HomeDomainError as error:
            fault = fault or error
        if len(found) == MAX_VALIDATORS:
            break
    if not found and fault is not None:
        raise fault
    return tuple(found)


def _parse_toml(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
        if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
            raise HomeDomainError(f"its stellar.toml has a line with more than {MAX_DOTS} dots")
        return tomllib.loads(text)
    except RecursionError:
        raise HomeDomainError("its stellar.toml is nested too deeply") from None
    except ValueError as error:  # neither UTF-8, nor TOML, nor a number that Python reads
        raise HomeDomainError(f"its stellar.toml is not TOML: {shown(str(error))}") from None


def _validator(entry: object) -> HomeDomainValidator:
    """Read one entry.

    :raises HomeDomainError: saying what is wrong with it.
    """
    if not isinstance(entry, dict):
        raise HomeDomainError(f"VALIDATORS: {shown(entry)} is not a table")
    host, key = entry["HOST"], entry.get("PUBLIC_KEY")
    name = entry.get("DISPLAY_NAME") or entry.get("ALIAS")
    try:
        if not isinstance(host, str) or not isinstance(key, str):
            raise InvalidKey("not a text")
        peer_id, address = PeerId.from_strkey(key), PeerAddress.parse(host)
    except (InvalidKey, InvalidPeerAddress):
        raise HomeDomainError(
            f"VALIDATORS: no validator can have HOST {shown(host)} and PUBLIC_KEY {shown(key)}"
        ) from None
    return HomeDomainValidator(
        peer_id=peer_id, address=address, name=name[:100] if isinstance(name, str) else None
    )


class HomeDomains(Service):
    """Asks each home domain for its validators, in the background, until it has answered once.

    :param domains: as :func:`check_domain` wants them.
    :param add: takes the hosts, as known peers.
    :param allow_private: whether hosts may be private: by number, or by a name that only the
        local network knows. Whoever writes a stellar.toml has no business with those of ours.
    :raises ConfigError: for a domain that is none.
    """

    _log = Logger()

    def __init__(
        self,
        domains: Iterable[str],
        fetch: Fetch,
        add: Callable[[Sequence[PeerAddress]], None],
        clock: IReactorTime,
        *,
        allow_private: bool = False,
    ) -> None:
        self.domains = tuple(dict.fromkeys(map(check_domain, domains)))
        self._fetch = fetch
        self._add = add
        self._clock = clock
        self._allow_private = allow_private
        self._tasks: list[Deferred[None]] = []

    def startService(self) -> None:
        super().startService()
        self._tasks = [Deferred.fromCoroutine(self._follow(domain)) for domain in self.domains]
        for task in self._tasks:
            task.addErrback(self._note_end)

    def stopService(self) -> None:
        """Give up what is not finished."""
        super().stopService()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()

    async def _follow(self, domain: str) -> None:
        """Ask until there is an answer."""
        failures = 0
        while True:
            try:
                validators = await self._fetch(domain)
                break
            except CancelledError:
                raise
            except HomeDomainError as error:
                reason = str(error)
            except Exception:  # a fault of ours must not end it for good
                self._log.failure('home domain "{domain}"', domain=domain)
                reason = f'home domain "{domain}": internal error'
            if not self.running:
                return
            failures += 1
            seconds = min(failures * RETRY_STEP_SECONDS, MAX_RETRY_SECONDS)
            self._log.warn("{reason}; again in {seconds} s", reason=reason, seconds=seconds)
            await deferLater(self._clock, seconds)
        self._take(domain, validators)

    def _note_end(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("while taking the hosts of a home domain", failure)

    def _take(self, domain: str, validators: Sequence[HomeDomainValidator]) -> None:
        hosts = list(dict.fromkeys(validator.address for validator in validators))
        fine = [host for host in hosts if self._allow_private or _is_public(host)]
        self._log.info(
            'home domain "{domain}": {count} hosts of validators, {skipped} private ones skipped',
            domain=domain,
            count=len(fine),
            skipped=len(hosts) - len(fine),
        )
        self._add(fine)


def _is_public(host: PeerAddress) -> bool:
    return not host.is_private if host.is_numeric else is_public_name(host.host)
