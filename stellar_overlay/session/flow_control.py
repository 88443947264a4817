"""Credit: how much a peer may send us, and how much we may send it (connection.md 6).

Counted in messages and in bytes, for the four flooded types. What a peer may send is what it was
granted and has not used; what we hold in processing, of any type, decides whether we read on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stellar_overlay.error import ConfigError, DropReason, PeerViolation
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE
from stellar_overlay.wire.message import FLOOD_KINDS, Message

INITIAL_PEER_FLOOD_READING_CAPACITY_BYTES = 300_000
INITIAL_FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES = 100_000
DEFAULT_MAX_TX_SIZE_BYTES = 102_400
"""The largest classic transaction (core MAX_CLASSIC_TX_SIZE_BYTES)."""
NO_CAPACITY_TIMEOUT_SECONDS = 60
"""How long a peer may leave us without credit (core PEER_SEND_MODE_IDLE_TIMEOUT)."""
MAX_CAPACITY = 2**64 - 1
"""Core counts a peer's grants in u64; beyond is "Peer capacity overflow"."""
MAX_GRANT = 2**32 - 1
"""Messages and bytes in one SEND_MORE_EXTENDED are u32 each."""

Item = tuple[int, bytes]
"""A received message: its type as a number, and its body."""


@dataclass(frozen=True, kw_only=True)
class FlowControlConfig:
    """Credit granted to each peer (core Config.cpp:275-300; checks :2024-2070).

    The two byte settings are automatic when both are 0.
    """

    peer_reading_capacity: int = 201
    """Messages of any type in processing before reading stops."""
    peer_flood_reading_capacity: int = 200
    """Flood messages that a peer may send ahead of our grants."""
    flow_control_send_more_batch_size: int = 40
    """Flood messages processed per grant."""
    peer_flood_reading_capacity_bytes: int = 0
    """Flood bytes that a peer may send ahead of our grants."""
    flow_control_send_more_batch_size_bytes: int = 0
    """Flood bytes processed per grant."""
    peer_total_reading_capacity_bytes: int = 1024 * 1024
    """Bytes of any type in processing before reading stops."""

    def __post_init__(self) -> None:
        batch, flood = self.flow_control_send_more_batch_size, self.peer_flood_reading_capacity
        if not 0 < batch <= flood < self.peer_reading_capacity:
            raise ConfigError(
                "need 0 < FLOW_CONTROL_SEND_MORE_BATCH_SIZE <= PEER_FLOOD_READING_CAPACITY"
                f" < PEER_READING_CAPACITY, not {batch}, {flood}, {self.peer_reading_capacity}"
            )
        flood_bytes = self.peer_flood_reading_capacity_bytes
        batch_bytes = self.flow_control_send_more_batch_size_bytes
        if not 0 <= batch_bytes <= flood_bytes:
            raise ConfigError(
                "need 0 <= FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES"
                f" <= PEER_FLOOD_READING_CAPACITY_BYTES, not {batch_bytes}, {flood_bytes}"
            )
        if max(flood, flood_bytes) > MAX_GRANT:
            raise ConfigError(
                "PEER_FLOOD_READING_CAPACITY and PEER_FLOOD_READING_CAPACITY_BYTES must be below"
                f" 2^32, not {flood}, {flood_bytes}"
            )
        if self.peer_total_reading_capacity_bytes < 1:
            raise ConfigError("PEER_TOTAL_READING_CAPACITY_BYTES must be at least 1")

    @property
    def is_auto(self) -> bool:
        """Whether the byte settings follow the largest transaction."""
        return not (
            self.peer_flood_reading_capacity_bytes or self.flow_control_send_more_batch_size_bytes
        )

    def bytes_total(self, max_tx_size: int) -> int:
        """Return the flood bytes granted at first (core OverlayManagerImpl.cpp:362-400)."""
        if not self.is_auto:
            return self.peer_flood_reading_capacity_bytes
        batch = INITIAL_FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES
        return max(INITIAL_PEER_FLOOD_READING_CAPACITY_BYTES, max_tx_size + batch)

    @property
    def bytes_batch(self) -> int:
        """Flood bytes processed per grant."""
        if not self.is_auto:
            return self.flow_control_send_more_batch_size_bytes
        return INITIAL_FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES

    def validate_headroom(self, max_tx_size: int) -> None:
        """Refuse settings with which a largest transaction could wait for ever.

        :raises ConfigError: when capacity less batch is below it (core HerderImpl.cpp:2589-2605).
        """
        room = self.bytes_total(max_tx_size) - self.bytes_batch
        if room < max_tx_size:
            raise ConfigError(
                "PEER_FLOOD_READING_CAPACITY_BYTES less FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES"
                f" is {room}, but must be at least the largest transaction, {max_tx_size} bytes"
            )


@dataclass(frozen=True)
class SendMoreCapacity:
    """A grant: what SEND_MORE_EXTENDED says."""

    num_flood_messages: int
    num_flood_bytes: int

    @property
    def should_send(self) -> bool:
        """Whether it grants anything."""
        return self.num_flood_messages > 0 or self.num_flood_bytes > 0


@dataclass(frozen=True, kw_only=True)
class FlowControlStats:
    """Where both directions stand, in messages and bytes."""

    local_flood_capacity: int
    local_total_capacity: int
    peer_message_capacity: int
    local_flood_bytes_capacity: int
    local_total_bytes_capacity: int
    peer_bytes_capacity: int
    is_throttled: bool


class FlowControl:
    """Both directions' credit on one link.

    :param max_tx_size: bytes of the largest transaction that the network allows now.
    :param now: when the link was made: from then on we are without credit.
    """

    __slots__ = (
        "_bytes_batch",
        "_credit_bytes",
        "_credit_messages",
        "_processed_bytes",
        "_processed_messages",
        "_processing_bytes",
        "_processing_messages",
        "_throttled_at",
        "config",
        "credit_since",
        "max_tx_size",
        "no_capacity_since",
        "out_bytes",
        "out_messages",
    )

    def __init__(
        self,
        config: FlowControlConfig | None = None,
        *,
        max_tx_size: int = DEFAULT_MAX_TX_SIZE_BYTES,
        now: float = 0.0,
    ) -> None:
        self.config = config or FlowControlConfig()
        self.max_tx_size = max_tx_size
        self._bytes_batch = self.config.bytes_batch
        # What the peer may still send: granted, and not received yet.
        self._credit_messages = self.config.peer_flood_reading_capacity
        self._credit_bytes = self.config.bytes_total(max_tx_size)
        # What it sent and we have not done with.
        self._processing_messages = 0
        self._processing_bytes = 0
        # What we have done with since the last grant.
        self._processed_messages = 0
        self._processed_bytes = 0
        self._throttled_at: float | None = None
        # What we may still send.
        self.out_messages = 0
        self.out_bytes = 0
        self.no_capacity_since: float | None = now
        self.credit_since = now
        """When a grant last ended a want of credit: nothing could have left before."""

    # Receiving.

    def initial_grant(self) -> SendMoreCapacity:
        """Return the first grant, which says what the peer may send already."""
        self._credit_bytes = self.config.bytes_total(self.max_tx_size)
        return SendMoreCapacity(self._credit_messages, self._credit_bytes)

    def begin_message_processing(self, message: Message) -> bool:
        """Take one message into processing; False, and nothing taken, when it is over credit."""
        return self.begin(((int(message.type), message.body),)) == (1, None)

    def end_message_processing(self, message: Message) -> SendMoreCapacity | None:
        """Give back what one message took; return the grant that is due with it, if one is."""
        grants = self.end(((int(message.type), message.body),))
        return grants[0] if grants else None

    def begin(self, items: Sequence[Item]) -> tuple[int, PeerViolation | None]:
        """Take ``items`` into processing, in order, until total capacity is spent.

        :returns: how many were taken (the others wait until :attr:`can_read` is true again), and
            what is wrong with the next one when it is over the peer's credit.
        """
        flooded, flood_bytes, total = _sums(items)
        config = self.config
        if (
            self._processing_messages + len(items) <= config.peer_reading_capacity
            and self._processing_bytes + total <= config.peer_total_reading_capacity_bytes
            and flooded <= self._credit_messages
            and flood_bytes <= self._credit_bytes
        ):
            self._processing_messages += len(items)
            self._processing_bytes += total
            self._credit_messages -= flooded
            self._credit_bytes -= flood_bytes
            return len(items), None
        return self._begin_one_by_one(items)

    def _begin_one_by_one(self, items: Sequence[Item]) -> tuple[int, PeerViolation | None]:
        for taken, (kind, body) in enumerate(items):
            if not self.can_read:
                return taken, None
            if kind in FLOOD_KINDS:
                if self._credit_messages < 1 or self._credit_bytes < len(body):
                    return taken, DropReason.AT_CAPACITY.violation(
                        f"{len(body)} bytes, with {self._credit_messages} messages and"
                        f" {self._credit_bytes} bytes of its credit left"
                    )
                self._credit_messages -= 1
                self._credit_bytes -= len(body)
            self._processing_messages += 1
            self._processing_bytes += len(body)
        return len(items), None

    def count_within_credit(self, items: Iterable[Item]) -> int:
        """Return how many of ``items``, from the first on, the peer has credit for now."""
        messages, total = self._credit_messages, self._credit_bytes
        count = 0
        for kind, body in items:
            if kind in FLOOD_KINDS:
                messages -= 1
                total -= len(body)
                if messages < 0 or total < 0:
                    break
            count += 1
        return count

    def end(self, items: Sequence[Item]) -> list[SendMoreCapacity]:
        """Give back what ``items`` took; return the grants that are due, oldest first.

        A grant returns what was processed, after each full batch of messages or of bytes (core
        FlowControl.cpp:233-275).
        """
        flooded, flood_bytes, total = _sums(items)
        if len(items) > self._processing_messages or total > self._processing_bytes:
            raise AssertionError("more ended than began")
        self._processing_messages -= len(items)
        self._processing_bytes -= total
        if (
            self._processed_messages + flooded < self.config.flow_control_send_more_batch_size
            and self._processed_bytes + flood_bytes < self._bytes_batch
        ):
            self._processed_messages += flooded
            self._processed_bytes += flood_bytes
            return []
        return self._collect_grants([len(body) for kind, body in items if kind in FLOOD_KINDS])

    def _collect_grants(self, sizes: list[int]) -> list[SendMoreCapacity]:
        batch_messages = self.config.flow_control_send_more_batch_size
        batch_bytes = self._bytes_batch
        messages, total = self._processed_messages, self._processed_bytes
        grants = []
        done = 0
        while (count := batch_messages - messages) <= len(sizes) - done:
            size = total + sum(sizes[done : done + count])
            if size >= batch_bytes:  # perhaps before the last of them: look at each
                break
            done += count
            grants.append(SendMoreCapacity(batch_messages, size))
            self._credit_messages += batch_messages
            self._credit_bytes += size
            messages = total = 0
        for size in sizes[done:]:
            messages += 1
            total += size
            if messages >= batch_messages or total >= batch_bytes:
                grants.append(SendMoreCapacity(messages, total))
                self._credit_messages += messages
                self._credit_bytes += total
                messages = total = 0
        self._processed_messages, self._processed_bytes = messages, total
        return grants

    def handle_tx_size_increase(self, increase: int) -> SendMoreCapacity:
        """Make room for larger transactions; return the grant of bytes alone that says so."""
        self.max_tx_size += increase
        self._credit_bytes += increase
        return SendMoreCapacity(0, increase)

    @property
    def processing_bytes(self) -> int:
        """Bytes of messages in processing."""
        return self._processing_bytes

    @property
    def can_read(self) -> bool:
        """Whether what is in processing leaves room for one more message of any size."""
        return (
            self._processing_messages < self.config.peer_reading_capacity
            and self._processing_bytes < self.config.peer_total_reading_capacity_bytes
        )

    @property
    def is_throttled(self) -> bool:
        """Whether reading has stopped for want of capacity."""
        return self._throttled_at is not None

    def maybe_throttle_read(self, now: float) -> bool:
        """Note that reading stops, when nothing more can be read; tell whether it is so."""
        if self._throttled_at is None and not self.can_read:
            self._throttled_at = now
        return self._throttled_at is not None

    def stop_throttling(self, now: float) -> float:
        """Note that reading goes on; return for how many seconds it had stopped."""
        since, self._throttled_at = self._throttled_at, None
        return 0.0 if since is None else now - since

    # Sending.

    def is_send_more_valid(self, num_messages: int, num_bytes: int) -> bool:
        """Tell whether a grant of so much is legal now (core FlowControl.cpp:379-416)."""
        return (
            num_bytes > 0
            and self.out_messages + num_messages <= MAX_CAPACITY
            and self.out_bytes + num_bytes <= MAX_CAPACITY
        )

    def maybe_release_capacity(self, num_messages: int, num_bytes: int, now: float) -> float:
        """Take the peer's grant; return for how many seconds we had been without credit.

        :raises PeerViolation: when it is not legal.
        """
        if num_bytes == 0:
            raise DropReason.BAD_SEND_MORE.violation(f"{num_messages} messages, 0 bytes")
        if not self.is_send_more_valid(num_messages, num_bytes):
            raise DropReason.CAPACITY_OVERFLOW.violation()
        self.out_messages += num_messages
        self.out_bytes += num_bytes
        since, self.no_capacity_since = self.no_capacity_since, None
        if since is None:
            return 0.0
        self.credit_since = now
        return now - since

    def may_send(self, size: int) -> bool:
        """Tell whether a flood message of so many bytes is within the peer's grants."""
        return self.out_messages >= 1 and self.out_bytes >= size

    def spend(self, size: int) -> None:
        """Use up credit for a flood message of so many bytes that leaves now."""
        self.out_messages -= 1
        self.out_bytes -= size

    def note_no_capacity(self, now: float) -> None:
        """Note that something waits for credit; only the first moment counts."""
        if self.no_capacity_since is None:
            self.no_capacity_since = now

    def no_outbound_capacity_timeout(
        self, now: float, seconds: float = NO_CAPACITY_TIMEOUT_SECONDS
    ) -> bool:
        """Tell whether the peer has left us without credit for so long."""
        return self.no_capacity_since is not None and now - self.no_capacity_since >= seconds

    def get_stats(self) -> FlowControlStats:
        """Return where both directions stand."""
        config = self.config
        return FlowControlStats(
            local_flood_capacity=self._credit_messages + self._processed_messages,
            local_total_capacity=config.peer_reading_capacity - self._processing_messages,
            peer_message_capacity=self.out_messages,
            local_flood_bytes_capacity=self._credit_bytes + self._processed_bytes,
            local_total_bytes_capacity=MAX_MESSAGE_SIZE
            + 4
            + config.peer_total_reading_capacity_bytes
            - self._processing_bytes,
            peer_bytes_capacity=self.out_bytes,
            is_throttled=self.is_throttled,
        )


def _sums(items: Sequence[Item]) -> tuple[int, int, int]:
    """Return how many messages are flooded, how many bytes these have, and how many all have."""
    if len(items) == 1:
        ((kind, body),) = items
        size = len(body)
        return (1, size, size) if kind in FLOOD_KINDS else (0, 0, size)
    sizes = [len(body) for kind, body in items if kind in FLOOD_KINDS]
    flood_bytes = sum(sizes)
    if len(sizes) == len(items):
        return len(sizes), flood_bytes, flood_bytes
    return len(sizes), flood_bytes, sum([len(body) for _, body in items])
