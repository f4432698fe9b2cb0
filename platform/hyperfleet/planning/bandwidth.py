"""Bandwidth of a run: bytes per second of all links together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.engine import EventRow
from hyperfleet.link.network import BYTES_PER_MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Bandwidth:
    """Traffic of all links together, in MiB/s: the busiest second and the mean of the run."""

    uplink_peak_mib_per_s: float
    uplink_mean_mib_per_s: float
    downlink_peak_mib_per_s: float
    downlink_mean_mib_per_s: float


class Traffic:
    """Messages of a run, from the rows of its event log: begin, end and bytes of each."""

    def __init__(self) -> None:
        self.num_sent = 0
        self._up: list[tuple[float, float, int]] = []
        self._down: list[tuple[float, float, int]] = []
        self._under_way: dict[tuple[int, int, int], tuple[float, int]] = {}

    def add(self, events: Sequence[EventRow]) -> None:
        """Add rows of the event log."""
        for time_s, kind, device, number, attempt, num_bytes, duration_s, _, _ in events:
            if kind == rows.SENT:
                self.num_sent += 1
                self._under_way[device, number, attempt] = time_s, num_bytes
            elif kind == rows.RECEIVED:
                sent_s, size = self._under_way.pop((device, number, attempt))
                self._up.append((sent_s, time_s, size))
            elif num_bytes:
                # Refused or interrupted messages have no duration: their bytes count at one time.
                through = kind in (rows.DELIVERED, rows.CORRUPT)
                self._down.append((time_s - duration_s if through else time_s, time_s, num_bytes))

    def bandwidth(self, end_s: float) -> Bandwidth:
        """Return the bandwidth of a run that ended at `end_s`."""
        never_received = [(sent_s, sent_s, size) for sent_s, size in self._under_way.values()]
        up, down = bytes_by_second(self._up + never_received), bytes_by_second(self._down)
        # Full seconds, as for the peak, so that the mean never exceeds it.
        run_s = max(len(up), len(down), math.ceil(end_s), 1)
        return Bandwidth(
            uplink_peak_mib_per_s=float(up.max(initial=0.0)) / BYTES_PER_MIB,
            uplink_mean_mib_per_s=float(up.sum()) / run_s / BYTES_PER_MIB,
            downlink_peak_mib_per_s=float(down.max(initial=0.0)) / BYTES_PER_MIB,
            downlink_mean_mib_per_s=float(down.sum()) / run_s / BYTES_PER_MIB,
        )


def bytes_by_second(messages: Sequence[tuple[float, float, int]]) -> Float64[np.ndarray, " second"]:
    """Spread messages (begin, end, bytes) evenly over their time and return the bytes of each second."""
    if not messages:
        return np.zeros(0)
    begin_s, end_s, size = np.array(messages, dtype=np.float64).T
    first, last = np.floor(begin_s).astype(np.int64), np.floor(end_s).astype(np.int64)
    carried = np.zeros(int(last.max()) + 1)
    took_s = end_s - begin_s
    for offset in range(int((last - first).max()) + 1):
        there = first + offset <= last
        second = (first + offset)[there]
        overlap_s = np.minimum(end_s[there], second + 1) - np.maximum(begin_s[there], second)
        # A message without duration counts in one second.
        share = np.divide(overlap_s, took_s[there], out=np.ones_like(overlap_s), where=took_s[there] > 0)
        carried += np.bincount(second, weights=share * size[there], minlength=len(carried))
    return carried
