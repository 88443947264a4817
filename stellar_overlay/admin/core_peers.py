"""Stellar-core's commands about single peers: whom to dial, whom to drop, who is banned."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from stellar_overlay.address import PeerAddress
from stellar_overlay.admin.named import node_named
from stellar_overlay.admin.route import Answer, Ask, Route
from stellar_overlay.admin.styled import plain, styled
from stellar_overlay.config_rules import shown
from stellar_overlay.error import OverlayError, PeerNotFound
from stellar_overlay.node.manager import OverlayManager

NO_ADDRESS = "Must specify a peer and port: connect&peer=PEER&port=PORT"


class PeerCommands:
    """Answers them; what is given as a node is repeated in the answer, as in core."""

    _log = Logger()

    def __init__(self, overlay: OverlayManager) -> None:
        self._overlay = overlay

    def routes(self) -> dict[str, Route]:
        """Return their paths; ``ban`` is ours, the others are core's."""
        return {
            "connect": Route(self._connect, is_changing=True),
            "droppeer": Route(self._drop_peer, is_changing=True),
            "bans": Route(self._bans),
            "ban": Route(self._ban, is_changing=True),
            "unban": Route(self._unban, is_changing=True),
        }

    def _connect(self, ask: Ask) -> Answer:
        """Dial; nobody waits for what comes of it.

        :raises InvalidPeerAddress: for what is no address.
        """
        host, port = ask.query.get("peer"), ask.query.get("port")
        if host is None or port is None:
            return Answer(NO_ADDRESS)
        given = f"{host}:{port}"
        Deferred.fromCoroutine(self._dial(PeerAddress.parse(given)))
        return Answer(f"Connect to: {plain(given)}")

    async def _dial(self, address: PeerAddress) -> None:
        try:
            await self._overlay.connect(address)
        except (OverlayError, CancelledError) as error:
            reason = shown(str(error) or "given up")
            self._log.info("connect to {address}: {reason}", address=str(address), reason=reason)
        except Exception:
            self._log.failure("connect to {address}", address=str(address))

    async def _drop_peer(self, ask: Ask) -> Answer:
        """Drop a peer, and ban it if asked to; who is not connected is not banned either."""
        name = ask.query.get("node")
        if name is None:
            return _which_node(ask)
        node = node_named(self._overlay, name)
        if node is None:
            return _not_found(name)
        try:
            if ask.query.get("ban") != "1":
                await self._overlay.disconnect(node)
                return Answer(f"Drop peer: {plain(name)}")
            self._overlay.peer(node)
        except PeerNotFound:
            return _not_found(name)
        await self._overlay.ban_peer(node)
        return Answer(f"Drop and ban peer: {plain(name)}")

    def _bans(self, ask: Ask) -> Answer:
        return Answer(styled({"bans": self._overlay.stores.bans.get_bans() or None}))

    async def _ban(self, ask: Ask) -> Answer:
        """Ban a node, connected or not: for good, or for so many seconds."""
        name = ask.query.get("node")
        if name is None:
            return _which_node(ask)
        is_for_good = ask.query.get("seconds") is None
        seconds = None if is_for_good else ask.query.uint("seconds", 0)
        node = node_named(self._overlay, name)
        if node is None:
            return _not_found(name)
        await self._overlay.ban_peer(node, seconds)
        how_long = "" if is_for_good else f" for {seconds} s"
        return Answer(f"Ban peer{how_long}: {plain(name)}")

    async def _unban(self, ask: Ask) -> Answer:
        name = ask.query.get("node")
        if name is None:
            return _which_node(ask)
        node = node_named(self._overlay, name)
        if node is None:
            return _not_found(name)
        await self._overlay.unban_peer(node)
        return Answer(f"Unban peer: {plain(name)}")


def _which_node(ask: Ask) -> Answer:
    return Answer(f"Must specify at least peer id: {ask.command}?node=NODE_ID")


def _not_found(name: str) -> Answer:
    return Answer(f"Peer {plain(name)} not found")
