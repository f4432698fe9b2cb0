"""The link of one device: one message after the other each way, with delay, jitter, loss and outages.

What a device draws depends on the seed, its id and the number of the message alone.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from hyperfleet.link.conditions import LinkConditions
from hyperfleet.link.trace import RateTrace
from hyperfleet.seeding import draw64

# What a TCP segment carries on an Ethernet-sized path with time stamps.
PACKET_BYTES = 1448

_NO_GAP = (math.inf, math.inf)

Pauses = Sequence[tuple[float, float]]


class Transfer(NamedTuple):
    """How a message travelled.

    Attributes:
        finish_s: when its last byte has arrived, in seconds.
        air_s: seconds in which its bytes were on the air, those sent again too; no waiting, no delay.
        sent_bytes: bytes on the air, those sent again too.
        num_lost_packets: packets lost, each loss of a packet counted.
    """

    finish_s: float
    air_s: float
    sent_bytes: int
    num_lost_packets: int


def _unit(key: int, index: int) -> float:
    """Return a draw above 0 and below 1."""
    return ((draw64(key, index) >> 12) + 0.5) * 2.0**-52


class _Lane:
    """One direction: what waits, what moves."""

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
        # A stream hands over in order: a message never overtakes the one before by having less jitter.
        finish_s = through_s + delay_s
        if finish_s < self._arrived_s:
            finish_s = self._arrived_s
        self._arrived_s = finish_s
        return Transfer(finish_s, air_s, sent_bytes, lost)

    def _rounds(self, message_key: int, num_bytes: int) -> list[tuple[int, int]]:
        """Return (bytes, packets) of each round of sending again, until nothing is lost.

        The losses of a round are the first ones of an endless row of draws, so a longer message loses what
        a shorter one would, and more: it never arrives earlier. Cost: one draw for each lost packet.
        """
        rounds: list[tuple[int, int]] = []
        num_packets = -(-num_bytes // PACKET_BYTES)
        log_kept = self._conditions.log_kept
        # The last packet carries the rest; it stays the last of those sent again, if it is one of them.
        short_by = num_packets * PACKET_BYTES - num_bytes
        while num_packets:
            round_key = draw64(message_key, len(rounds) + 1)
            lost, position = 0, -1
            last_lost = False
            while True:
                # Packets kept until the next loss: geometric, by inversion.
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
        """Return when the last byte is through and for how long bytes moved."""
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
        """Return the gap of handover number `turn`: one in each stretch of the mean time, anywhere in it."""
        every_s, gap_s = self._handover_every_s, self._conditions.handover_gap_s
        from_s = turn * every_s + _unit(self._handover_key, turn) * (every_s - gap_s)
        return from_s, from_s + gap_s


class DeviceLink:
    """Uplink and downlink of one device under `conditions`.

    Messages of a direction go one after the other in the order of the calls. A lost packet is sent again
    one round-trip time after the last byte of its round, with all others that were lost in it.
    Devices that share a recorded trace enter it at a point of their own, `trace_offset_s` seconds into it,
    lest a whole fleet fades at the same moment; without loss, jitter and delay a message that starts at t is
    through at exactly `trace.duration_s(t + trace_offset_s, num_bytes)` after t.
    """

    __slots__ = ("_downlink", "_uplink", "trace_offset_s")

    def __init__(self, conditions: LinkConditions, seed: int, device_id: int) -> None:
        up_key = down_key = handover_key = 0
        self.trace_offset_s = 0.0
        # Nothing is drawn that nobody looks at: a large fleet makes its links as fast as it asks.
        if conditions.has_draws:
            key = draw64(draw64(seed, 0), device_id)
            up_key, down_key, handover_key = draw64(key, 1), draw64(key, 2), draw64(key, 3)
            # One point for both directions, which were recorded at the same moment.
            self.trace_offset_s = _unit(key, 0) * conditions.recorded_s
        offset_s = self.trace_offset_s
        self._uplink = _Lane(conditions, conditions.uplink, up_key, handover_key, offset_s)
        self._downlink = _Lane(conditions, conditions.downlink, down_key, handover_key, offset_s)

    def up(self, start_s: float, num_bytes: int, pauses: Pauses = ()) -> Transfer:
        """Send `num_bytes` to the cloud at `start_s` (seconds, >= 0).

        `pauses` are outages (from_s, to_s) in which nothing moves, sorted and not overlapping; one that ends
        at infinity is for good, and so is the wait (`finish_s` is then infinite).
        """
        return self._uplink.send(start_s, num_bytes, pauses)

    def down(self, start_s: float, num_bytes: int, pauses: Pauses = ()) -> Transfer:
        """Send `num_bytes` to the device at `start_s`; see `up`."""
        return self._downlink.send(start_s, num_bytes, pauses)
