"""Link of one device: messages in order in each direction, with delay, jitter, loss and outages.

Draws depend only on the seed, the device id and the message number.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from hyperfleet.link.conditions import LinkConditions
from hyperfleet.link.trace import RateTrace
from hyperfleet.seeding import draw64

# Payload of a TCP segment with time stamps on an Ethernet path.
PACKET_BYTES = 1448

_NO_GAP = (math.inf, math.inf)

Pauses = Sequence[tuple[float, float]]


class Transfer(NamedTuple):
    """Outcome of sending one message.

    Attributes:
        finish_s: arrival time of the last byte, in seconds.
        air_s: seconds on the air including retransmissions, without waiting and delay.
        sent_bytes: bytes on the air including retransmissions.
        num_lost_packets: lost packets; a packet that is lost twice counts twice.
    """

    finish_s: float
    air_s: float
    sent_bytes: int
    num_lost_packets: int


def _unit(key: int, index: int) -> float:
    """Return a uniform draw in the open interval (0, 1)."""
    return ((draw64(key, index) >> 12) + 0.5) * 2.0**-52


class _Lane:
    """One direction of a link, a first-in first-out queue."""

    __slots__ = (
        "_arrived_s",
        "_conditions",
        "_free_s",
        "_handover_key",
        "_key",
        "_num_messages",
        "_offset_s",
        "_trace",
    )

    def __init__(
        self, conditions: LinkConditions, trace: RateTrace, key: int, handover_key: int, offset_s: float
    ) -> None:
        self._conditions = conditions
        self._trace = trace
        self._key = key
        self._handover_key = handover_key
        self._offset_s = offset_s
        self._free_s = 0.0
        self._arrived_s = 0.0
        self._num_messages = 0

    def send(self, start_s: float, num_bytes: int, pauses: Pauses) -> Transfer:
        conditions = self._conditions
        begin_s = start_s if start_s > self._free_s else self._free_s
        delay_s = conditions.rtt_s / 2
        lost = 0
        sent_bytes = num_bytes
        through_s, air_s = self._move(begin_s, num_bytes, pauses)
        if conditions.loss or conditions.jitter_s:
            message_key = draw64(self._key, self._num_messages)
            self._num_messages += 1
            if conditions.jitter_s:
                delay_s -= conditions.jitter_s * math.log(_unit(message_key, 0))
            if conditions.loss:
                for again_bytes, again in self._rounds(message_key, num_bytes):
                    through_s, more_s = self._move(through_s + conditions.rtt_s, again_bytes, pauses)
                    air_s += more_s
                    sent_bytes += again_bytes
                    lost += again
        self._free_s = through_s
        # A stream delivers in order: less jitter never lets a message overtake the one before it.
        finish_s = through_s + delay_s
        if finish_s < self._arrived_s:
            finish_s = self._arrived_s
        self._arrived_s = finish_s
        return Transfer(finish_s, air_s, sent_bytes, lost)

    def _rounds(self, message_key: int, num_bytes: int) -> list[tuple[int, int]]:
        """Return (bytes, packets) of each round of retransmission, until nothing is lost.

        The losses of a round are a prefix of an endless sequence of draws. A longer message therefore loses
        at least what a shorter one loses and never arrives earlier. Cost: one draw per lost packet.
        """
        rounds: list[tuple[int, int]] = []
        num_packets = -(-num_bytes // PACKET_BYTES)
        log_kept = self._conditions.log_kept
        # The last packet may be shorter; if it is sent again, it stays the last one.
        short_by = num_packets * PACKET_BYTES - num_bytes
        while num_packets:
            round_key = draw64(message_key, len(rounds) + 1)
            lost, position = 0, -1
            last_lost = False
            while True:
                # Packets kept until the next loss: geometric, by inversion of the distribution.
                kept = math.log(_unit(round_key, lost)) / log_kept
                if kept >= num_packets - position - 1:
                    break
                position += int(kept) + 1
                lost += 1
                last_lost = position == num_packets - 1
            if lost == 0:
                break
            if not last_lost:
                short_by = 0
            rounds.append((lost * PACKET_BYTES - short_by, lost))
            num_packets = lost
        return rounds

    def _move(self, begin_s: float, num_bytes: int, pauses: Pauses) -> tuple[float, float]:
        """Return when the last byte is sent and for how long bytes moved, both in seconds."""
        trace, offset_s = self._trace, self._offset_s
        if not pauses and self._conditions.handover_gap_s == 0:
            air_s = trace.duration_s(begin_s + offset_s, float(num_bytes))
            return begin_s + air_s, air_s
        moved_s = 0.0
        left = float(num_bytes)
        while True:
            from_s, to_s = self._next_gap(begin_s, pauses)
            if from_s > begin_s:
                air_s = trace.duration_s(begin_s + offset_s, left)
                if begin_s + air_s <= from_s:
                    return begin_s + air_s, moved_s + air_s
                left = max(left - trace.bytes_between(begin_s + offset_s, from_s + offset_s), 0.0)
                moved_s += from_s - begin_s
            if to_s == math.inf:
                return math.inf, moved_s
            begin_s = to_s

    def _next_gap(self, second: float, pauses: Pauses) -> tuple[float, float]:
        """Return the first outage that ends after `second`."""
        gap = _NO_GAP
        if pauses:
            i = bisect_right(pauses, (second, math.inf))
            if i and pauses[i - 1][1] > second:
                gap = pauses[i - 1]
            elif i < len(pauses):
                gap = pauses[i]
        if self._conditions.handover_gap_s == 0:
            return gap
        turn = int(second // self._handover_every_s)
        handover = self._handover(turn)
        if handover[1] <= second:
            handover = self._handover(turn + 1)
        return min(gap, handover)

    @property
    def _handover_every_s(self) -> float:
        every_s = self._conditions.handover_every_s
        assert every_s is not None
        return every_s

    def _handover(self, turn: int) -> tuple[float, float]:
        """Return the gap of handover number `turn`: one per interval of the mean time, uniform within it."""
        every_s, gap_s = self._handover_every_s, self._conditions.handover_gap_s
        from_s = turn * every_s + _unit(self._handover_key, turn) * (every_s - gap_s)
        return from_s, from_s + gap_s


class DeviceLink:
    """Uplink and downlink of one device under `conditions`.

    Each direction sends its messages one after the other, in the order of the calls. All packets lost in a
    round are sent again one round-trip time after its last byte.

    Each device enters a shared recorded trace at its own point, `trace_offset_s` seconds into it, so that a
    fleet does not fade all at once. Without loss, jitter and delay, a message that starts at t takes exactly
    `trace.duration_s(t + trace_offset_s, num_bytes)`.
    """

    __slots__ = ("_downlink", "_uplink", "trace_offset_s")

    def __init__(self, conditions: LinkConditions, seed: int, device_id: int) -> None:
        up_key = down_key = handover_key = 0
        self.trace_offset_s = 0.0
        # Skip draws that nothing uses: a large fleet builds many links.
        if conditions.has_draws:
            key = draw64(draw64(seed, 0), device_id)
            up_key, down_key, handover_key = draw64(key, 1), draw64(key, 2), draw64(key, 3)
            # The same point for both directions, which were recorded together.
            self.trace_offset_s = _unit(key, 0) * conditions.recorded_s
        offset_s = self.trace_offset_s
        self._uplink = _Lane(conditions, conditions.uplink, up_key, handover_key, offset_s)
        self._downlink = _Lane(conditions, conditions.downlink, down_key, handover_key, offset_s)

    def up(self, start_s: float, num_bytes: int, pauses: Pauses = ()) -> Transfer:
        """Send `num_bytes` to the cloud at `start_s` (seconds, >= 0).

        `pauses` are outages (from_s, to_s) during which nothing moves, sorted and disjoint. An outage that
        ends at infinity is permanent; a message that meets it has an infinite `finish_s`.
        """
        return self._uplink.send(start_s, num_bytes, pauses)

    def down(self, start_s: float, num_bytes: int, pauses: Pauses = ()) -> Transfer:
        """Send `num_bytes` to the device at `start_s`; see `up`."""
        return self._downlink.send(start_s, num_bytes, pauses)
