"""Where peers come in: one endpoint, and the factory that makes a link of each connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from stellar_overlay.node.connection import Connection


class ConnectionFactory(Factory):
    """Makes the links of one direction.

    :param build: returns a link, or None to close the connection without a byte.
    """

    noisy = False

    def __init__(self, build: Callable[[IAddress], Connection | None]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        return None if addr is None else self._build(addr)


class ListenerService(Service):
    """Listens on an endpoint; accepts nobody before it is started as a service.

    :param endpoint: None listens nowhere.
    """

    def __init__(self, endpoint: IStreamServerEndpoint | None, factory: ConnectionFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None

    async def listen(self) -> None:
        """Open the port: who connects waits in the kernel until :meth:`startService`.

        :raises Exception: whatever the endpoint raises, such as CannotListenError.
        """
        if self._endpoint is not None:
            self._port = await self._endpoint.listen(self._factory)
            if isinstance(self._port, FileDescriptor):
                self._port.stopReading()

    def startService(self) -> None:
        """Accept."""
        super().startService()
        if isinstance(self._port, FileDescriptor):
            self._port.startReading()

    @property
    def port(self) -> int | None:
        """The number of the port that is open; None when none is, or it has no number."""
        return None if self._port is None else getattr(self._port.getHost(), "port", None)

    def stopService(self) -> Deferred[object]:
        Service.stopService(self)
        port, self._port = self._port, None
        return maybeDeferred(lambda: None if port is None else port.stopListening())
