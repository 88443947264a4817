"""A whole session of a foreign implementation, recorded with its keys: 104 frames."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ErrorCode, PeerViolation
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.wire import message as layout
from stellar_overlay.wire.auth import (
    AuthContext,
    SessionIdentity,
    certificate_digest,
    is_valid_certificate,
    mac_key,
)
from stellar_overlay.wire.channel import OpeningKey, SealingKey, wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import Hello, Message, MessageType
from tests.builders import given_bytes, load_vectors

RECORDING = load_vectors("transcript")
FRAMES: list[dict[str, Any]] = RECORDING["frames"]
CRYPTO: dict[str, dict[str, Any]] = {
    vector["name"]: vector["fields"]
    for vector in load_vectors("xdr-vectors")["vectors"]
    if vector["xdrType"] == "crypto"
}
NETWORK_ID = bytes.fromhex(RECORDING["networkId"])
ROLES = ("initiator", "responder")
DIRECTIONS = {"i>r": "initiator", "r>i": "responder"}
"""Who sends."""


def field(role: str, name: str) -> bytes:
    """Return what a hexadecimal field of one side holds."""
    return bytes.fromhex(RECORDING[role][name])


def other(role: str) -> str:
    """Return the other side."""
    return ROLES[1 - ROLES.index(role)]


def frames_of(role: str) -> list[dict[str, Any]]:
    """Return the frames that one side sent, in order."""
    return [item for item in FRAMES if DIRECTIONS[item["dir"]] == role]


def body(item: dict[str, Any]) -> bytes:
    """Return the recorded StellarMessage of a frame."""
    return bytes.fromhex(item["message"])


def record(item: dict[str, Any]) -> bytes:
    """Return the recorded frame without its mark."""
    return bytes.fromhex(item["frame"])[4:]


def with_bit_31(item: dict[str, Any]) -> str:
    """Return the recorded frame as we send it; the recording never sets bit 31 of the mark."""
    raw = bytes.fromhex(item["frame"])
    return (bytes([raw[0] | 0x80]) + raw[1:]).hex()


def is_sealed(item: dict[str, Any]) -> bool:
    """Whether its number and MAC count."""
    return item["type"] not in ("hello", "errorMsg")


def context_of(role: str) -> AuthContext:
    """Return a context with one side's keys, at the time when its certificate was made."""
    side = RECORDING[role]
    made_at = int(side["cert"]["expiration"]) - 3600
    node = LocalNode(
        RECORDING["networkPassphrase"],
        side["secretSeed"],
        version_string=side["nodeInfo"]["versionString"],
        ledger_version=side["nodeInfo"]["ledgerVersion"],
        overlay_version=side["nodeInfo"]["overlayVersion"],
        overlay_min_version=side["nodeInfo"]["overlayMinVersion"],
        listening_port=side["listeningPortSent"],
        wall_clock=lambda: made_at,
        token_bytes=given_bytes(field(role, "ecdhSecret"), field(role, "nonce")),
    )
    return AuthContext(node, role == "initiator")


class KeyTests(SynchronousTestCase):
    """Certificates and keys, recomputed from the recorded secrets."""

    def test_network(self) -> None:
        """The network's id is that of its passphrase."""
        self.assertEqual(context_of("initiator").local_node.network_id, NETWORK_ID)

    def test_node_keys(self) -> None:
        """Seeds in both forms give the recorded node ids in both forms."""
        for role in ROLES:
            for seed in (RECORDING[role]["secretSeed"], field(role, "rawSeed")):
                peer_id = LocalNode(RECORDING["networkPassphrase"], seed).peer_id
                self.assertEqual(peer_id.key, field(role, "rawPublicKey"))
                self.assertEqual(str(peer_id), RECORDING[role]["publicKey"])

    def test_certificates_are_valid(self) -> None:
        """Both recorded certificates are good until they expire, one of them in milliseconds."""
        for role in ROLES:
            cert = Hello.decode(body(frames_of(role)[0])).cert
            node = PeerId(field(role, "rawPublicKey"))
            self.assertEqual(cert.expiration, int(RECORDING[role]["cert"]["expiration"]))
            for late, is_good in ((0, True), (1, False)):
                now = cert.expiration + late
                self.assertIs(is_valid_certificate(cert, node, NETWORK_ID, now), is_good)

    def test_certificate_digests(self) -> None:
        """What is signed is the SHA-256 of the recorded 76 bytes."""
        for role in ROLES:
            cert = RECORDING[role]["cert"]
            public_key = field(role, "ecdhPublic")
            digest = certificate_digest(NETWORK_ID, int(cert["expiration"]), public_key)
            self.assertEqual(digest.hex(), cert["sha256"])
            self.assertEqual(digest, hashlib.sha256(bytes.fromhex(cert["preimage"])).digest())

    def test_our_hello_is_the_recorded_one(self) -> None:
        """With the same secrets, at the same time, our HELLO is theirs to the last byte."""
        for role in ROLES:
            hello = context_of(role).create_hello()
            self.assertEqual(hello.body.hex(), frames_of(role)[0]["message"])

    def test_shared_keys(self) -> None:
        """Both sides find the recorded K, each from its own secret."""
        for role in ROLES:
            node = context_of(role).local_node
            node.token_bytes = given_bytes(field(role, "ecdhSecret"))
            identity = SessionIdentity(node)
            self.assertEqual(identity.public_key, field(role, "ecdhPublic"))
            key = identity.shared_key(field(other(role), "ecdhPublic"), role == "initiator")
            self.assertEqual(key, field(role, "sharedKey"))

    def test_mac_keys(self) -> None:
        """Each side's sending key is what the other side receives with."""
        for role in ROLES:
            key = mac_key(
                field(role, "sharedKey"),
                from_caller=role == "initiator",
                sender_nonce=field(role, "nonce"),
                receiver_nonce=field(other(role), "nonce"),
            )
            self.assertEqual(key, field(role, "sendMacKey"))
            self.assertEqual(key, field(other(role), "recvMacKey"))

    def test_crypto_vectors(self) -> None:
        """The single steps of the key schedule agree with xdr-vectors.json."""
        for role in ROLES:
            cert = CRYPTO[f"auth_cert_{role}"]
            key = bytes.fromhex(cert["ecdhPublic"])
            digest = certificate_digest(NETWORK_ID, int(cert["expiration"]), key)
            self.assertEqual(digest.hex(), cert["sha256"])
            signer = context_of(role).local_node
            self.assertEqual(
                (str(signer.peer_id), signer.sign(digest).hex()),
                (
                    cert["signer"],
                    cert["signature"],
                ),
            )
        extract = CRYPTO["hkdf_extract"]
        self.assertEqual(extract["output"], RECORDING["initiator"]["sharedKey"])
        for name in ("hkdf_expand_K_AB_initiator_sends", "hkdf_expand_K_BA_responder_sends"):
            expand = CRYPTO[name]
            info = bytes.fromhex(expand["info"])
            key = mac_key(
                bytes.fromhex(expand["prk"]),
                from_caller=info[0] == 0,
                sender_nonce=info[1:33],
                receiver_nonce=info[33:],
            )
            self.assertEqual(key.hex(), expand["output"])

    def test_mac_vectors(self) -> None:
        """A message sealed with the recorded key and number has the recorded MAC."""
        examples = [*RECORDING["macExamples"]]
        examples += [CRYPTO["mac_initiator_getScpState"], CRYPTO["mac_responder_peers"]]
        for example in examples:
            sealing = SealingKey(bytes.fromhex(example["key"]))
            sealing.sequence = example["seq"]
            signed = bytes.fromhex(example["macInput"])
            sealed = sealing.seal(signed[8:])
            self.assertEqual((sealed[8:-32], sealed[-32:].hex()), (signed, example["mac"]))


class FrameTests(SynchronousTestCase):
    """The 104 frames, opened and sealed again."""

    def test_numbers_of_the_recording(self) -> None:
        """Both directions together are 104 frames, the first of each a HELLO."""
        counts = {role: len(frames_of(role)) for role in ROLES}
        self.assertEqual(sum(counts.values()), 104)
        self.assertEqual([frames_of(role)[0]["type"] for role in ROLES], ["hello"] * 2)

    def test_open_one_by_one(self) -> None:
        """Every frame opens with its direction's key, in order, number and MAC checked."""
        for role in ROLES:
            opening = OpeningKey(field(role, "sendMacKey"))
            for item in frames_of(role)[1:]:
                self.assertEqual(opening.open(record(item)), (item["typeId"], body(item)))
            self.assertEqual(opening.sequence, sum(map(is_sealed, frames_of(role))))

    def test_open_as_a_stream(self) -> None:
        """The same as one stream, in one read and in reads of 7 bytes."""
        for role in ROLES:
            stream = b"".join(bytes.fromhex(item["frame"]) for item in frames_of(role)[1:])
            for size in (len(stream), 7):
                frames = FrameBuffer(MAX_MESSAGE_SIZE)
                opening = OpeningKey(field(role, "sendMacKey"))
                opened: list[tuple[int, bytes]] = []
                for at in range(0, len(stream), size):
                    frames.feed(stream[at : at + size])
                    opening.open_records(frames, opened, 1000)
                expected = [(item["typeId"], body(item)) for item in frames_of(role)[1:]]
                self.assertEqual(opened, expected)
                self.assertEqual(opening.sequence, sum(map(is_sealed, frames_of(role))))

    def test_seal_again(self) -> None:
        """Every sealed message gives the recorded frame again, but for bit 31 of its mark."""
        for role in ROLES:
            sealing = SealingKey(field(role, "sendMacKey"))
            for item in filter(is_sealed, frames_of(role)):
                self.assertEqual(sealing.sequence, item["seq"])
                self.assertEqual(sealing.seal(body(item)).hex(), with_bit_31(item))

    def test_caller_hello_as_ours(self) -> None:
        """The caller's HELLO has number 0 and a zero MAC, as ours; the callee's MAC is a quirk."""
        caller, callee = FRAMES[:2]
        self.assertEqual(frame(wrap_unauthenticated(body(caller))).hex(), with_bit_31(caller))
        ours = wrap_unauthenticated(body(callee))
        self.assertEqual(record(callee)[:-32], ours[:-32])
        self.assertNotEqual(record(callee)[-32:], ours[-32:])

    def test_wrong_key(self) -> None:
        """No sealed frame opens with the other direction's key."""
        for role in ROLES:
            for item in filter(is_sealed, frames_of(role)):
                opening = OpeningKey(field(role, "recvMacKey"))
                opening.sequence = item["seq"]
                with self.assertRaises(PeerViolation) as caught:
                    opening.open(record(item))
                self.assertEqual(caught.exception.reason, "unexpected MAC")

    def test_error_message(self) -> None:
        """The last frame is an ERROR_MSG with a number and a MAC, which are not looked at."""
        item = FRAMES[-1]
        key = field("responder", "sendMacKey")
        self.assertEqual((item["type"], item["seq"]), ("errorMsg", 48))
        signed = record(item)[4:-32]
        self.assertEqual(hmac.digest(key, signed, "sha256"), record(item)[-32:])
        for opening in (OpeningKey(key), OpeningKey(bytes(32))):
            self.assertEqual(opening.open(record(item)), (0, body(item)))
            self.assertEqual(opening.sequence, 0)
        self.assertEqual(layout.decode_error(body(item)), (ErrorCode.ERR_LOAD, b"peer rejected"))

    def test_two_contexts_in_their_place(self) -> None:
        """A context with one side's secrets lives through the session in that side's place."""
        for role in ROLES:
            ours = context_of(role)
            ours.local_node.wall_clock = lambda: 4_000_000_000
            for item in FRAMES:
                if DIRECTIONS[item["dir"]] == role:
                    if item["type"] not in ("hello", "errorMsg"):
                        wrapped = ours.wrap_message(Message(body(item)))
                        self.assertEqual(frame(wrapped).hex(), with_bit_31(item))
                    continue
                message = ours.unwrap_message(record(item))
                self.assertEqual(message.body, body(item))
                if message.type is MessageType.HELLO:
                    ours.process_hello(message)
                elif message.type is MessageType.AUTH:
                    ours.process_auth(message)
            self.assertTrue(ours.is_authenticated)
            self.assertEqual(str(ours.peer_id), RECORDING[other(role)]["publicKey"])


class BodyTests(SynchronousTestCase):
    """What the frames say, read by our decoders."""

    def test_fields(self) -> None:
        """The small messages say what the recorder noted."""
        read: dict[str, Callable[[bytes, dict[str, Any]], tuple[object, object]]] = {
            "auth": lambda raw, info: (layout.decode_auth(raw), info["flags"]),
            "sendMoreExtended": lambda raw, info: (
                layout.decode_send_more_extended(raw),
                (info["numMessages"], info["numBytes"]),
            ),
            "getScpState": lambda raw, info: (layout.decode_get_scp_state(raw), info["ledger"]),
            "getScpQuorumset": lambda raw, info: (
                layout.decode_hash_query(raw).hex(),
                info["hash"],
            ),
            "getTxSet": lambda raw, info: (layout.decode_hash_query(raw).hex(), info["hash"]),
            "dontHave": lambda raw, info: (layout.decode_dont_have(raw)[1].hex(), info["hash"]),
            "floodAdvert": lambda raw, info: (
                [item.hex() for item in layout.decode_hashes(raw)],
                info["hashes"],
            ),
            "floodDemand": lambda raw, info: (
                [item.hex() for item in layout.decode_hashes(raw)],
                info["hashes"],
            ),
            "peers": lambda raw, info: (
                [f"{peer.host}:{peer.port}" for peer in layout.decode_peers(raw)],
                info["peers"],
            ),
        }
        seen = set()
        for item in FRAMES:
            if item["type"] in read:
                seen.add(item["type"])
                found, noted = read[item["type"]](body(item), item["info"])
                self.assertEqual(found, noted, f"frame {item['n']}")
        self.assertEqual(seen, set(read))

    def test_types_and_sizes(self) -> None:
        """Each body has the recorded type and the size that flow control counts."""
        for item in FRAMES:
            message = Message(body(item))
            self.assertEqual((message.type, message.size), (item["typeId"], item["size"]))

    def test_flood_bytes(self) -> None:
        """What counts as flood adds up to what the recorder counted."""
        for role in ROLES:
            sizes = [Message(body(item)) for item in frames_of(role)]
            total = sum(message.size for message in sizes if message.is_flood)
            self.assertEqual(total, RECORDING[role]["stats"]["txFloodBytes"])

    def test_objects_of_every_frame(self) -> None:
        """Every body passes the structural check and is the XDR of its object."""
        for item in FRAMES:
            message = Message(body(item))
            self.assertEqual(message.decoded.to_xdr_bytes(), message.body, f"frame {item['n']}")
