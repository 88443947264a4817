"""An HTTPS server on loopback with a certificate that was made a moment ago."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http import Request
from twisted.web.iweb import IPolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

Answer = Callable[[Request], bytes | int]
"""Answers a request: with the body, or with NOT_DONE_YET."""


@cache
def certificate(name: str = "localhost") -> PrivateCertificate:
    """Return a self-signed certificate for ``name``, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName(_names(name)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(
        made.public_bytes(serialization.Encoding.PEM) + pem
    )
    return loaded


def trusting(*certificates: Certificate) -> IPolicyForHTTPS:
    """Return a policy that trusts nobody else."""
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates(certificates))


class Pages(Resource):
    """Answers by path.

    :ivar requests: every one that came, in order.
    """

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        answer = self.answers.get(request.path.decode())
        if answer is None:
            request.setResponseCode(404)
            return b""
        return answer(request)


class HttpsServer:
    """Pages, and the domain that they are under."""

    def __init__(self, port: Any, pages: Pages) -> None:
        self.pages = pages
        self.domain = f"localhost:{port.getHost().port}"


def text(body: str | bytes) -> Answer:
    """Answer with a text."""
    data = body.encode() if isinstance(body, str) else body
    return lambda request: data


def redirect(location: str, code: int = 302) -> Answer:
    """Answer with a redirect."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        request.setHeader("Location", location)
        return b"elsewhere"

    return answer


def silence(request: Request) -> int:
    """Answer nothing at all."""
    request.notifyFinish().addErrback(lambda _: None)
    return NOT_DONE_YET


@asynccontextmanager
async def serving(reactor: Any, name: str = "localhost") -> AsyncIterator[HttpsServer]:
    """Run a server on loopback whose certificate is for ``name``, and stop it at the end."""
    pages = Pages()
    factory = Site(pages)
    factory.noisy = False
    own = certificate(name)
    options = CertificateOptions(privateKey=own.privateKey.original, certificate=own.original)
    port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
    try:
        yield HttpsServer(port, pages)
    finally:
        await port.stopListening()


def _names(name: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ipaddress.ip_address(name))]
    except ValueError:
        return [x509.DNSName(name)]
