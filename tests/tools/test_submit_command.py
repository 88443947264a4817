"""``stellar-overlay submit`` as a command, against real sockets."""

from __future__ import annotations

import json
import signal
import subprocess

import stellar_sdk as sdk
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType
from tests.herder.kit import payment
from tests.processes import CLI, Listener, Result, Running, free_port, run, scratch, scripted
from tests.tools.test_submit import Demanding, Ignorant

ENVELOPE = payment().to_xdr()
FIELDS = [
    *("ok", "tx_hash", "hash", "size", "peers", "told", "demands", "echoes", "failures"),
]


class CommandTests(SynchronousTestCase):
    def peer(self, kind: type[ScriptedPeer] = Demanding) -> tuple[str, str]:
        """Return the id and the address of a peer on a port of loopback."""
        node = LocalNode(TESTNET_PASSPHRASE)
        self.called: list[ScriptedPeer] = []

        def answer() -> ScriptedPeer:
            self.called.append(kind(node, we_called_remote=False))
            return self.called[-1]

        return node.peer_id.strkey, Listener(self, scripted(answer)).address

    @property
    def advertised(self) -> list[Message]:
        """What has been advertised to the peer so far."""
        return [m for peer in self.called for m in peer.of_type(MessageType.FLOOD_ADVERT)]

    def submit(self, *arguments: str) -> Result:
        """Run it to its end, after a second at most."""
        result = run(self, *CLI, "submit", *arguments, "--seconds", "1")
        self.assertFalse(result.has_traceback, result.said)
        return result

    def test_taken(self) -> None:
        """It is said who asked, and who told of it: status 0."""
        name, address = self.peer()
        result = self.submit(ENVELOPE, "--peer", address)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertIn(payment().hash_hex(), result.stdout)
        self.assertRegex(result.stdout, rf"asked +{name} {address} after \d+ ms\n")
        self.assertRegex(result.stdout, rf"heard back +{name} {address} advertised it after")
        self.assertIn("1 peer asked for it;", result.stdout)

    def test_json(self) -> None:
        """One object and nothing else, whatever came of it."""
        name, address = self.peer()
        dead = f"127.0.0.1:{free_port()}"
        result = self.submit(ENVELOPE, "--peer", address, "--peer", dead, "--json")
        self.assertEqual((result.status, result.stderr, result.stdout.count("\n")), (0, "", 1))
        report = json.loads(result.stdout)
        self.assertEqual(list(report), FIELDS)
        self.assertEqual((report["ok"], report["told"]), (True, 1))
        self.assertEqual(report["peers"], [{"node": name, "address": address}])
        self.assertEqual([demand["peer"] for demand in report["demands"]], [name])
        self.assertEqual([failure["address"] for failure in report["failures"]], [dead])
        result = self.submit(ENVELOPE, "--peer", dead, "--json")
        self.assertEqual((result.status, result.stderr), (3, ""))
        self.assertFalse(json.loads(result.stdout)["ok"])

    def test_piped(self) -> None:
        """An envelope can be piped in, line by line; nonsense is one line of complaint."""
        _, address = self.peer()
        folder = scratch(self)
        (folder / "envelope").write_text("\n".join([ENVELOPE[:40], ENVELOPE[40:], ""]))
        (folder / "nonsense").write_bytes(bytes(range(256)) * 10_000)
        command = subprocess.list2cmdline(
            [*CLI, "submit", "-", "--peer", address, "--seconds", "1"]
        )
        for name, status in (("envelope", 0), ("nonsense", 2)):
            result = run(self, "sh", "-c", f"{command} < {folder / name}")
            self.assertEqual(result.status, status, result.said)
            self.assertEqual(len(result.stderr.splitlines()), bool(status))
        self.assertEqual(self.submit("-", "--peer", address).status, 2)
        self.assertFalse(run(self, "sh", "-c", f"{command} <&-").has_traceback)

    def test_nobody_asks(self) -> None:
        """It is said what it may mean that nobody asks: status 1."""
        _, address = self.peer(Ignorant)
        result = self.submit(ENVELOPE, "--peer", address)
        self.assertEqual((result.status, result.stderr), (1, ""))
        self.assertIn("nobody asked for it within 1 s", result.stdout)

    def test_interrupted(self) -> None:
        """Ctrl-C ends it at once."""
        _, address = self.peer(Ignorant)
        submit = Running(self, (*CLI, "submit", ENVELOPE, "--peer", address))
        submit.wait_until(lambda: bool(self.advertised))
        submit.send(signal.SIGINT)
        self.assertEqual(submit.wait(5), Result(130, "", "\n"))

    def test_nobody_there(self) -> None:
        """Status 3 and a line for each peer."""
        result = self.submit(ENVELOPE, "--peer", f"127.0.0.1:{free_port()}")
        self.assertEqual((result.status, result.stdout), (3, ""))
        self.assertIn("nobody listens there", result.stderr)

    def test_force(self) -> None:
        """What looks to be of no use is sent only if the user insists."""
        _, address = self.peer()
        changed = payment()
        changed.transaction.fee += 1
        assert isinstance(changed, sdk.TransactionEnvelope)
        self.assertEqual(self.submit(changed.to_xdr(), "--peer", address).status, 2)
        result = self.submit(changed.to_xdr(), "--peer", address, "--force")
        self.assertEqual((result.status, result.stderr), (0, ""))
