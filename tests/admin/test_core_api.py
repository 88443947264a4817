"""Core's commands, asked over HTTP: shapes, texts, and what a peer's words become."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from stellar_overlay import __version__
from stellar_overlay.config import QuorumSet
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.manager import OverlayManager
from tests.admin.kit import AdminTestCase, Reply
from tests.builders import WALL_NOW, make_node
from tests.node.world import ip

HOSTILE = b"\x00\x1b[31m</script><b>\xff\xe2\x80\xae\"'"
OTHER = make_node(7).peer_id.strkey
STARTED = "Requested network to start survey collecting."
NOT_STARTED = "Failed to start survey collecting. Another survey is active on the network."
STOPPED = "Requested network to stop survey collecting."
NOT_STOPPED = "Failed to stop survey collecting. No survey is active on the network."


class _Raw(str):
    """A text that is sent as other bytes than it should be."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return HOSTILE


class InfoTests(AdminTestCase):
    """``/info``: what core's tools need of it."""

    def test_fields(self) -> None:
        """Every field is there, with its type; what only a ledger could tell is 0."""
        info = self.ask("/info")["info"]
        self.assertEqual(
            set(info),
            {
                "build", "protocol_version", "state", "startedOn", "network", "ledger", "peers",
                "quorum",
            },
        )  # fmt: skip
        self.assertRegex(info["build"], rf"^v{re.escape(__version__)} \(stellar-overlay")
        self.assertRegex(info["build"], r"^(stellar-core|v) ?(\d+)\.(\d+)\.(\d+).*")
        self.assertEqual(info["network"], self.node.local_node.network_passphrase)
        self.assertEqual(info["protocol_version"], self.node.local_node.ledger_version)
        started = datetime.strptime(info["startedOn"], "%Y-%m-%dT%H:%M:%SZ")
        self.assertEqual((started - datetime(1970, 1, 1)).total_seconds(), WALL_NOW)
        ledger = info["ledger"]
        self.assertEqual(ledger.pop("hash"), "0" * 64)
        names = {"age", "baseFee", "baseReserve", "closeTime", "maxTxSetSize", "num", "version"}
        self.assertEqual(ledger, dict.fromkeys(names, 0))
        self.assertEqual(info["peers"], {"authenticated_count": 0, "pending_count": 0})
        self.assertEqual(info["state"], "Joining SCP")
        self.assertEqual(
            info["quorum"],
            {
                "node": self.node.local_node.peer_id.short,
                "qset": {
                    "phase": "unknown", "agree": 0, "delayed": 0, "disagree": 0, "missing": 0,
                    "fail_at": 0,
                },
            },
        )  # fmt: skip

    def test_peers(self) -> None:
        """Peers are counted, those in their handshake apart."""
        self.world.call(number=9)
        self.world.call(number=8, is_polite=False)
        peers = self.ask("/info")["info"]["peers"]
        self.assertEqual(peers, {"authenticated_count": 1, "pending_count": 1})


class SyncedInfoTests(AdminTestCase):
    """A node that follows consensus, of a network whose quorum set it knows."""

    settings = {"quorum_set": QuorumSet(1, (OTHER,))}  # noqa: RUF012

    def test_missing(self) -> None:
        """Nodes of the quorum set that were never heard are missing."""
        qset = self.ask("/info")["info"]["quorum"]["qset"]
        self.assertEqual((qset["phase"], qset["missing"]), ("unknown", 1))

    def test_synced(self) -> None:
        """While it tracks a ledger, it is synced, and that is its ledger."""
        herder = self.node.herder
        self.patch(herder, "tracking_ledger", lambda: 77)
        self.patch(herder, "is_tracking", lambda: True)
        info = self.ask("/info")["info"]
        self.assertEqual((info["state"], info["ledger"]["num"]), ("Synced!", 77))


class PeersTests(AdminTestCase):
    """``/peers``."""

    settings = {"node_names": {OTHER: "seven"}}  # noqa: RUF012

    def test_nobody(self) -> None:
        """Nobody is null, as jsoncpp prints it."""
        nobody = {"inbound": None, "outbound": None}
        self.assertEqual(
            self.ask("/peers"), {"authenticated_peers": nobody, "pending_peers": nobody}
        )

    def test_compact(self) -> None:
        """A peer is its short key, its address, and where credit stands."""
        node = make_node(9, port=4711)
        self.world.call(number=9, local_node=node)
        self.world.clock.advance(3)
        (found,) = self.ask("/peers")["authenticated_peers"]["inbound"]
        self.assertEqual(
            set(found), {"id", "address", "elapsed", "latency", "ver", "olver", "flow_control"}
        )
        self.assertEqual(found["id"], node.peer_id.short)
        self.assertEqual(found["address"], f"{ip(9)}:4711")
        self.assertEqual((found["elapsed"], found["latency"], found["olver"]), (3, 86_400_000, 42))
        self.assertEqual(found["ver"], node.version_string)
        credit = found["flow_control"]
        self.assertEqual(credit["local_capacity"], {"reading": 201, "flood": 200})
        self.assertEqual(set(credit["local_capacity_bytes"]), {"reading", "flood"})
        self.assertIsInstance(credit["peer_capacity"], int)
        self.assertIsInstance(credit["peer_capacity_bytes"], int)

    def test_whole(self) -> None:
        """Only ``compact=false`` gives the counts."""
        self.world.call(number=9)
        self.assertEqual(self.ask("/peers?compact=no"), self.ask("/peers?compact=true"))
        (found,) = self.ask("/peers?compact=false")["authenticated_peers"]["inbound"]
        counts = {
            f"{what}_{way}": found[f"{what}_{way}"]
            for what in ("message", "byte", "async")
            for way in ("read", "write")
        }
        self.assertTrue(all(count > 0 for count in counts.values()), counts)
        for name in (
            "message_drop", "unique_flood_message_recv", "duplicate_flood_message_recv",
            "unique_fetch_message_recv", "duplicate_fetch_message_recv",
        ):  # fmt: skip
            self.assertEqual(found[name], 0)

    def test_keys(self) -> None:
        """A name from the configuration, or the key in full when asked for; in order of keys."""
        nodes = [make_node(number) for number in (7, 8, 9)]
        for number, node in zip((7, 8, 9), reversed(nodes), strict=True):
            self.world.call(number=number, local_node=node)
        names = [peer["id"] for peer in self.ask("/peers")["authenticated_peers"]["inbound"]]
        ids = sorted(node.peer_id for node in nodes)
        self.assertEqual(names, ["seven" if one.strkey == OTHER else one.short for one in ids])
        full = self.ask("/peers?fullkeys=true")["authenticated_peers"]["inbound"]
        self.assertEqual([peer["id"] for peer in full], [peer_id.strkey for peer_id in ids])

    def test_pending_and_outbound(self) -> None:
        """Who is shaking hands is an address; whom we dialled stands apart."""
        self.world.call(number=8, is_polite=False)
        self.world.answer(9)
        self.world.result(self.node.connect(f"{ip(9)}:11625"))
        found = self.ask("/peers")
        self.assertEqual(len(found["authenticated_peers"]["outbound"]), 1)
        self.assertIsNone(found["authenticated_peers"]["inbound"])
        (address,) = found["pending_peers"]["inbound"]
        self.assertTrue(address.startswith(f"{ip(8)}:"), address)

    def test_hostile_version(self) -> None:
        """What a peer calls itself cannot hide in the answer, nor get out of it."""
        node = make_node(9)
        node.version_string = _Raw("")
        self.world.call(number=9, local_node=node)
        reply = self.get("/peers")
        self.assertTrue(reply.text.replace("\n", "").isprintable())
        self.assertNotIn("<", reply.text)
        (found,) = reply.json()["authenticated_peers"]["inbound"]
        self.assertEqual(found["ver"], HOSTILE.decode(errors="backslashreplace"))


class ScpTests(AdminTestCase):
    """``/scp``."""

    def test_you(self) -> None:
        """With limit=0 it only says who we are."""
        own = self.node.local_node.peer_id
        for uri, name in (("/scp?limit=0", own.short), ("/scp?limit=0&fullkeys=true", own.strkey)):
            self.assertEqual(self.ask(uri), {"you": name, "scp": None, "queue": None})

    def test_limits(self) -> None:
        """Any number of 64 bits will do; nothing was heard."""
        for limit in ("", "?limit=1", "?limit=18446744073709551615"):
            self.assertIsNone(self.ask(f"/scp{limit}")["scp"])
        self.assertEqual(
            self.ask("/scp?limit=-1"), {"exception": "Failed to parse 'limit' argument"}
        )


class SurveyTests(AdminTestCase):
    """The five commands of a survey."""

    def request(self, node: str = OTHER) -> str:
        """Ask a node of the survey."""
        return self.say(
            f"/surveytopologytimesliced?node={node}&inboundpeerindex=0&outboundpeerindex=0"
        )

    def test_whole_survey(self) -> None:
        """Each text, to the letter; the results in core's shape."""
        before = self.ask("/getsurveyresult")
        self.assertNotIn("topology", before)
        self.assertEqual(self.say("/startsurveycollecting?nonce=4294967295"), STARTED)
        self.assertEqual(self.node.survey.nonce, 2**32 - 1)
        self.assertEqual(self.say("/startsurveycollecting?nonce=6"), NOT_STARTED)
        self.assertEqual(self.say("/stopsurveycollecting"), STOPPED)
        self.assertIs(self.node.survey.phase, SurveyPhase.REPORTING)
        self.assertEqual(self.say("/stopsurveycollecting"), STOPPED)  # no effect, as core says it
        self.assertEqual(self.request(), "Adding node.Survey started ")
        self.assertEqual(self.request(), "Adding node.Survey already running!")
        own = self.node.local_node.peer_id.strkey
        self.assertEqual(self.request(own), "Adding node.Survey already running!")
        results = self.ask("/getsurveyresult")
        self.assertEqual(
            set(results), {"backlog", "badResponseNodes", "surveyInProgress", "topology"}
        )
        self.assertTrue(results["surveyInProgress"])
        self.assertEqual(results["topology"][own]["numTotalInboundPeers"], 0)
        self.assertIsNone(results["topology"][own]["inboundPeers"])
        self.assertEqual(self.say("/stopsurvey"), "survey stopped")
        self.assertFalse(self.ask("/getsurveyresult")["surveyInProgress"])
        self.assertEqual(self.say("/stopsurvey"), "survey stopped")

    def test_no_survey(self) -> None:
        """Nothing can be stopped or asked where there is none; nothing is changed by trying."""
        self.assertEqual(self.say("/stopsurveycollecting"), NOT_STOPPED)
        self.assertIn("exception", self.ask_raw().json())
        self.assertFalse(self.node.survey.is_active)

    def test_too_early(self) -> None:
        """While it collects, nobody is asked, and no figure is lost by it (messages.md case 60)."""
        self.say("/startsurveycollecting?nonce=5")
        self.assertIn("still collecting", self.ask_raw().json()["exception"])
        self.assertIs(self.node.survey.phase, SurveyPhase.COLLECTING)

    def ask_raw(self) -> Reply:
        """Return the reply to a request to ask a node."""
        return self.get(
            f"/surveytopologytimesliced?node={OTHER}&inboundpeerindex=0&outboundpeerindex=0"
        )

    def test_parameters(self) -> None:
        """Each one that is missing or garbled is named, in core's words and order."""
        for uri, text in (
            ("/startsurveycollecting", "'nonce' argument is required!"),
            ("/startsurveycollecting?nonce=", "'nonce' argument is required!"),
            ("/startsurveycollecting?nonce=x", "Failed to parse 'nonce' argument"),
            ("/startsurveycollecting?nonce=4294967296", "Failed to parse 'nonce' argument"),
            ("/surveytopologytimesliced", "'node' argument is required!"),
            ("/surveytopologytimesliced?node=GABCD", "bad public key"),
            (f"/surveytopologytimesliced?node={OTHER[:-1]}A", "bad public key"),
            (f"/surveytopologytimesliced?node={OTHER}", "'inboundpeerindex' argument is required!"),
            (
                f"/surveytopologytimesliced?node={OTHER}&inboundpeerindex=1",
                "'outboundpeerindex' argument is required!",
            ),
            (
                f"/surveytopologytimesliced?node={OTHER}&inboundpeerindex=0&outboundpeerindex=-1",
                "Failed to parse 'outboundpeerindex' argument",
            ),
        ):
            self.assertEqual(self.ask(uri), {"exception": text}, uri)


class MetricsTests(AdminTestCase):
    """``/metrics``."""

    def test_report(self) -> None:
        """When, where, and what was counted; a peer shows in it, and rates follow by themselves."""
        self.world.call(number=9)
        self.world.advance(5)
        report = self.ask("/metrics")
        self.assertEqual(list(report), ["ts", "uname", "metrics"])
        self.assertEqual(len(report["ts"]), len("2026-07-25T17:20:05Z"))
        metrics: dict[str, Any] = report["metrics"]
        self.assertEqual(metrics["overlay.connection.authenticated"]["count"], 1)
        self.assertEqual(metrics["overlay.inbound.live"]["count"], 1)
        read = metrics["overlay.byte.read"]
        self.assertEqual(read["count"], self.node.metrics.bytes_read.get())
        self.assertGreater(read["1_min_rate"], 0)
        self.assertEqual(set(self.ask("/metrics?enable=nothing")["metrics"]), set())

    def test_clear(self) -> None:
        """What is counted begins anew, of a domain or of all; what is looked at stays."""
        self.world.call(number=9)
        self.world.advance(5)
        self.assertEqual(self.say("/clearmetrics?domain=scp"), "Cleared scp metrics!")
        self.assertGreater(self.node.metrics.bytes_read.get(), 0)
        self.assertEqual(self.say("/clearmetrics?domain=overlay"), "Cleared overlay metrics!")
        metrics: dict[str, Any] = self.ask("/metrics")["metrics"]
        read = metrics["overlay.byte.read"]
        rates = {read[f"{name}_rate"] for name in ("mean", "1_min", "5_min", "15_min")}
        self.assertEqual((read["count"], rates), (0, {0.0}))
        self.assertEqual(metrics["overlay.connection.authenticated"]["count"], 1)
        self.node.metrics.bytes_read.inc()
        self.assertEqual(self.say("/clearmetrics"), "Cleared  metrics!")
        self.assertEqual(self.node.metrics.bytes_read.get(), 0)

    def test_clear_hostile(self) -> None:
        """A domain is repeated harmlessly."""
        text = self.say('/clearmetrics?domain=<b>%1b"')
        self.assertEqual(text, r"Cleared \u003cb\u003e\u001b\" metrics!")

    def test_clear_from_elsewhere(self) -> None:
        """The page of another site clears nothing."""
        self.world.call(number=9)
        reply = self.get("/clearmetrics", ("Origin", "http://evil.example"))
        self.assertEqual(reply.status, 403)
        self.assertGreater(self.node.metrics.bytes_read.get(), 0)


class SelfCheckTests(AdminTestCase):
    """``/self-check``."""

    def test_empty(self) -> None:
        """It answers nothing, successfully."""
        self.assertEqual(self.say("/self-check"), "")


class AloneTests(AdminTestCase):
    """A node that talks to nobody."""

    settings = {"run_standalone": True}  # noqa: RUF012

    def test_routes(self) -> None:
        """It has no commands about peers (messages.md 7.1)."""
        for command in ("info", "metrics", "clearmetrics", "self-check"):
            self.assertEqual(self.get(f"/{command}").status, 200)
        for command in (
            "peers", "scp", "startsurveycollecting", "stopsurveycollecting", "stopsurvey",
            "surveytopologytimesliced", "getsurveyresult", "bans", "ban", "unban", "connect",
            "droppeer", "quorum",
        ):  # fmt: skip
            self.assertEqual(self.get(f"/{command}").status, 404)


class IgnorantTests(AdminTestCase):
    """A node whose brain ignores all it hears."""

    def make_node(self) -> OverlayManager:
        return self.world.node(herder=IgnoringHerder())

    def test_info(self) -> None:
        """It says what it knows: nothing."""
        info = self.ask("/info")["info"]
        self.assertEqual((info["state"], info["ledger"]["num"]), ("Joining SCP", 0))
        self.assertIsNone(self.ask("/scp")["scp"])
