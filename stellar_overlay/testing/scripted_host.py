"""A host on which scripted peers live: they listen there, and dial from there."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.address import DEFAULT_PEER_PORT, PeerAddress
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.memory import MemoryNetwork
from stellar_overlay.testing.scripted_peer import ScriptedPeer


class ScriptedHost:
    """Scripted peers at one address, which all have one key.

    :param kind: what is made for each connection; a subclass of :class:`ScriptedPeer`, or
        whatever takes the same arguments.
    :ivar is_polite: whether peers made from now on shake hands by themselves.
    :ivar answered: the peers that somebody called, oldest first.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        ip: str,
        local_node: LocalNode,
        *,
        port: int = DEFAULT_PEER_PORT,
        kind: Callable[..., ScriptedPeer] = ScriptedPeer,
        is_polite: bool = True,
    ) -> None:
        self.address = PeerAddress(ip, port)
        self.local_node = local_node
        self.is_polite = is_polite
        self.answered: list[ScriptedPeer] = []
        self._network = network
        self._kind = kind

    def listen(self) -> None:
        """Answer whoever calls."""
        factory = ScriptedPeer.factory(self._answer)
        self._network.listen(self.address.host, self.address.port, factory)

    def stop_listening(self) -> None:
        """Refuse whoever calls."""
        self._network.close(self.address.host, self.address.port)

    def dial(self, to: PeerAddress, *, local_node: LocalNode | None = None) -> ScriptedPeer:
        """Return a peer that has dialled ``to``; it speaks as time passes.

        :param local_node: who it is, if not the host's own.
        :raises twisted.internet.error.ConnectionRefusedError: when nobody listens there, or who
            does wants no more.
        """
        peer = self._kind(local_node or self.local_node, is_polite=self.is_polite)
        self._network.connect(self.address.host, to, ScriptedPeer.factory(lambda: peer))
        return peer

    def _answer(self) -> ScriptedPeer:
        peer = self._kind(self.local_node, we_called_remote=False, is_polite=self.is_polite)
        self.answered.append(peer)
        return peer
