"""Time-varying, periodic throughput of a link, and the duration of messages on it."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from hyperfleet.errors import ConfigError
from hyperfleet.link.network import BYTES_PER_MIB

# Bytes at segment bounds are sums of rounded products. A message that exceeds a bound by less than this ends
# there: rounding must not make its last byte wait for the end of a silent stretch.
_SLACK_BYTES = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class RateTrace:
    """Piecewise constant throughput: `bytes_per_s[i]` from `start_s[i]` on, repeated every `period_s`.

    Plain tuples and floats, because every message of a run reads them.

    Raises:
        ConfigError: the segments do not start at 0 and rise up to the period, a rate is negative or not
            finite, or the trace never moves a byte.
    """

    start_s: tuple[float, ...]
    bytes_per_s: tuple[float, ...]
    period_s: float
    # Set for a link of constant speed: durations are then the papers' quotient, bit for bit.
    steady_mib_per_s: float | None = None
    # Bounds of the segments, the period last, and the bytes sent up to each bound.
    edges_s: tuple[float, ...] = field(init=False, repr=False, compare=False)
    done_bytes: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        edges = (*self.start_s, self.period_s)
        done = [0.0]
        for i, rate in enumerate(self.bytes_per_s):
            done.append(done[-1] + rate * (edges[i + 1] - edges[i]))
        if not 0 < done[-1] < math.inf:
            raise ConfigError(
                f"RateTrace.bytes_per_s must move some bytes in a period, got {done[-1]} bytes in "
                f"{self.period_s} s; give a rate above zero somewhere"
            )
        object.__setattr__(self, "edges_s", edges)
        object.__setattr__(self, "done_bytes", tuple(done))

    def _check(self) -> None:
        if not 0 < self.period_s < math.inf:
            raise ConfigError(f"RateTrace.period_s must be finite and > 0, got {self.period_s}")
        if not self.start_s or len(self.start_s) != len(self.bytes_per_s):
            raise ConfigError(
                "RateTrace.start_s must hold one time for each rate and at least one, got "
                f"{len(self.start_s)} times for {len(self.bytes_per_s)} rates"
            )
        edges = (*self.start_s, self.period_s)
        # "not less" also refuses NaN.
        if edges[0] != 0 or any(not edges[i] < edges[i + 1] for i in range(len(self.start_s))):
            raise ConfigError(
                "RateTrace.start_s must begin at 0 and rise, all below period_s, got "
                f"{self.start_s[:4]}... with a period of {self.period_s} s; sort the segments"
            )
        for i, rate in enumerate(self.bytes_per_s):
            if not 0 <= rate < math.inf:
                raise ConfigError(
                    f"RateTrace.bytes_per_s must be finite and >= 0, got {rate} at index {i}; "
                    "write 0.0 where nothing is delivered"
                )

    @classmethod
    def constant(cls, mib_per_s: float) -> "RateTrace":
        """Return the trace of a link with a constant `mib_per_s` MiB/s.

        Raises:
            ConfigError: the speed is not finite or not above zero.
        """
        if not 0 < mib_per_s < math.inf:
            raise ConfigError(
                f"RateTrace.constant needs a finite mib_per_s > 0, got {mib_per_s}; "
                "a link that is down is a pause, not a speed"
            )
        return cls(
            start_s=(0.0,),
            bytes_per_s=(mib_per_s * BYTES_PER_MIB,),
            period_s=1.0,
            steady_mib_per_s=mib_per_s,
        )

    @classmethod
    def of(cls, start_s: Sequence[float], bytes_per_s: Sequence[float], period_s: float) -> "RateTrace":
        """Return the trace with `bytes_per_s[i]` from `start_s[i]` on, repeated every `period_s` seconds.

        Raises:
            ConfigError: see the class.
        """
        return cls(
            start_s=tuple(float(second) for second in start_s),
            bytes_per_s=tuple(float(rate) for rate in bytes_per_s),
            period_s=float(period_s),
        )

    def duration_s(self, start_s: float, num_bytes: float) -> float:
        """Return the seconds that `num_bytes` take from `start_s` (>= 0) on; more bytes never take less."""
        if self.steady_mib_per_s is not None:
            return num_bytes / BYTES_PER_MIB / self.steady_mib_per_s
        if num_bytes <= _SLACK_BYTES:
            return 0.0
        edges, done, rates = self.edges_s, self.done_bytes, self.bytes_per_s
        phase = start_s % self.period_s
        i = bisect_right(edges, phase, 0, len(rates)) - 1
        rate = rates[i]
        target = done[i] + (phase - edges[i]) * rate + num_bytes
        if rate > 0 and target - _SLACK_BYTES <= done[i + 1]:
            return min(num_bytes / rate, edges[i + 1] - phase)
        total = done[-1]
        periods = 0.0
        if target - _SLACK_BYTES > total:
            periods = math.ceil((target - _SLACK_BYTES) / total) - 1.0
            target -= periods * total
            if target <= _SLACK_BYTES:  # the quotient was rounded up
                periods -= 1.0
                target += total
            target = min(target, total)
        # The earliest time by which that many bytes are sent: never the end of a silent segment.
        j = bisect_left(done, target - _SLACK_BYTES) - 1
        passed = min(edges[j] + (target - done[j]) / rates[j], edges[j + 1])
        return max(periods * self.period_s + passed - phase, 0.0)

    def bytes_between(self, from_s: float, to_s: float) -> float:
        """Return the bytes sent from `from_s` to `to_s` (seconds, 0 <= from_s <= to_s)."""
        if self.steady_mib_per_s is not None:
            return (to_s - from_s) * self.bytes_per_s[0]
        return self._bytes_by(to_s) - self._bytes_by(from_s)

    def _bytes_by(self, second: float) -> float:
        periods, phase = divmod(second, self.period_s)
        i = bisect_right(self.edges_s, phase, 0, len(self.bytes_per_s)) - 1
        within = self.done_bytes[i] + (phase - self.edges_s[i]) * self.bytes_per_s[i]
        return periods * self.done_bytes[-1] + within
