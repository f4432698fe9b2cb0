"""Arrival processes: when samples arrive at the devices of a run.

In an open loop samples arrive whatever the devices do. Such a process draws all arrivals of a run at once, as
two arrays: `time_s`, ascending from the start of the run, and `device`, the position among the active
devices. Arrivals at the same time are ordered by device. In a closed loop a device takes its next sample when
it has answered the previous one, so only the first arrival of each device can be drawn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from hyperfleet.errors import ConfigError, DataError

# 1.6 GB of arrivals. More indicates a rate in the wrong unit.
MAX_ARRIVALS = 100_000_000

Times = Float64[np.ndarray, " arrival"]
Devices = Int64[np.ndarray, " arrival"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Poisson:
    """Each device gets samples at a constant rate, independently of the others and of the past.

    Attributes:
        per_device_per_s: samples per second and device.

    Raises:
        ConfigError: a rate that is negative or not finite.
    """

    per_device_per_s: float
    kind: Literal["poisson"] = "poisson"

    def __post_init__(self) -> None:
        _check_rate("Poisson", self.per_device_per_s)

    def draw(self, rng: np.random.Generator, num_devices: int, duration_s: float) -> tuple[Times, Devices]:
        """Draw the arrivals of `duration_s` seconds at `num_devices` devices: times, and devices.

        Raises:
            ConfigError: no device, no duration, or more than `MAX_ARRIVALS` to be expected.
        """
        _check_run(num_devices, duration_s)
        time_s = _uniform_times(rng, self.per_device_per_s * num_devices, 0.0, duration_s)
        return _in_order(time_s, rng.integers(num_devices, size=len(time_s)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Diurnal:
    """A rate that swings like a day: rate(t) = mean * (1 + amplitude * cos(2 pi (t - peak) / period)).

    Attributes:
        per_device_per_s: mean samples per second and device over a period.
        period_s: length of a day.
        amplitude: 0 is a constant rate; at 1 the rate falls to zero half a period after the peak.
        peak_at_s: time of any peak of the rate.

    Raises:
        ConfigError: a value out of range.
    """

    per_device_per_s: float
    period_s: float = 86_400.0
    amplitude: float = 0.8
    peak_at_s: float = 43_200.0
    kind: Literal["diurnal"] = "diurnal"

    def __post_init__(self) -> None:
        _check_rate("Diurnal", self.per_device_per_s)
        if not 0 < self.period_s < float("inf"):
            raise ConfigError(f"Diurnal.period_s must be finite and > 0 seconds, got {self.period_s}")
        if not 0 <= self.amplitude <= 1:
            raise ConfigError(
                f"Diurnal.amplitude must be between 0 and 1, got {self.amplitude}; "
                "the rate would be negative at night"
            )
        if not np.isfinite(self.peak_at_s):
            raise ConfigError(f"Diurnal.peak_at_s must be a finite time in seconds, got {self.peak_at_s}")

    def draw(self, rng: np.random.Generator, num_devices: int, duration_s: float) -> tuple[Times, Devices]:
        """Draw the arrivals of `duration_s` seconds at `num_devices` devices: times, and devices.

        Raises:
            ConfigError: no device, no duration, or more than `MAX_ARRIVALS` to be expected.
        """
        _check_run(num_devices, duration_s)
        highest_per_s = self.per_device_per_s * num_devices * (1 + self.amplitude)
        time_s = _uniform_times(rng, highest_per_s, 0.0, duration_s)
        # Thinning: draw at the highest rate, and keep each arrival with probability rate(t) / highest rate.
        swing = np.cos((time_s - self.peak_at_s) * (2 * np.pi / self.period_s))
        kept = rng.random(len(time_s)) * (1 + self.amplitude) < 1 + self.amplitude * swing
        time_s = time_s[kept]
        return _in_order(time_s, rng.integers(num_devices, size=len(time_s)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """A flash crowd: for `burst_s` seconds a share of the devices asks `factor` times as often.

    Attributes:
        per_device_per_s: samples per second and device, outside the burst and for devices not in it.
        at_s: start of the burst.
        burst_s: its duration.
        factor: 1 is no burst.
        share: share of devices in the burst, drawn at random, at least one device.

    Raises:
        ConfigError: a value out of range.
    """

    per_device_per_s: float
    at_s: float
    burst_s: float
    factor: float
    share: float = 1.0
    kind: Literal["burst"] = "burst"

    def __post_init__(self) -> None:
        _check_rate("Burst", self.per_device_per_s)
        if not 0 <= self.at_s < float("inf"):
            raise ConfigError(f"Burst.at_s must be finite and >= 0 seconds, got {self.at_s}")
        if not 0 < self.burst_s < float("inf"):
            raise ConfigError(f"Burst.burst_s must be finite and > 0 seconds, got {self.burst_s}")
        if not 1 <= self.factor < float("inf"):
            raise ConfigError(
                f"Burst.factor must be finite and >= 1, got {self.factor}; a lull is a Diurnal or a Trace"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"Burst.share must be above 0 and at most 1, got {self.share}")

    def draw(self, rng: np.random.Generator, num_devices: int, duration_s: float) -> tuple[Times, Devices]:
        """Draw the arrivals of `duration_s` seconds at `num_devices` devices: times, and devices.

        Raises:
            ConfigError: no device, no duration, or more than `MAX_ARRIVALS` to be expected.
        """
        _check_run(num_devices, duration_s)
        crowd = rng.permutation(num_devices)[: max(1, round(self.share * num_devices))]
        # The sum of two Poisson processes is one: the base rate of all devices, plus the crowd's extra rate.
        calm_s = _uniform_times(rng, self.per_device_per_s * num_devices, 0.0, duration_s)
        calm = rng.integers(num_devices, size=len(calm_s))
        more_per_s = self.per_device_per_s * (self.factor - 1) * len(crowd)
        extra_s = _uniform_times(rng, more_per_s, self.at_s, min(self.at_s + self.burst_s, duration_s))
        extra = crowd[rng.integers(len(crowd), size=len(extra_s))]
        return _in_order(np.concatenate([calm_s, extra_s]), np.concatenate([calm, extra]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Recorded or external arrivals: a Parquet or CSV file with columns time_s and device.

    The file is read when the trace is created, so a broken one stops a run before it begins, and again when
    the arrivals are drawn.

    Attributes:
        path: ends in .parquet or .csv; `write_trace` writes either.

    Raises:
        ConfigError: another suffix.
        DataError: the file is missing or broken; the message names the line or row.
    """

    path: Path
    kind: Literal["trace"] = "trace"

    def __post_init__(self) -> None:
        from hyperfleet.scenario.arrival_files import ArrivalFile  # not above: it needs pyarrow

        ArrivalFile.read(self.path)

    def draw(self, rng: np.random.Generator, num_devices: int, duration_s: float) -> tuple[Times, Devices]:
        """Return the arrivals of the first `duration_s` seconds: times, and devices; nothing is drawn.

        Raises:
            ConfigError: no device, or no duration.
            DataError: the file was damaged meanwhile, or names a device beyond `num_devices`.
        """
        from hyperfleet.scenario.arrival_files import ArrivalFile  # not above: it needs pyarrow

        _check_run(num_devices, duration_s)
        file = ArrivalFile.read(self.path)
        end = int(np.searchsorted(file.time_s, duration_s))
        beyond = np.flatnonzero(file.device[:end] >= num_devices)
        if len(beyond):
            first = int(beyond[0])
            raise DataError(
                f"{file.place(first)}: device {file.device[first]} of a run with {num_devices} active "
                f"devices, expected 0 to {num_devices - 1}; "
                "raise Scenario.active_devices or renumber the trace"
            )
        return _in_order(file.time_s[:end], file.device[:end])


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedLoop:
    """Each device takes its next sample as soon as it has answered the previous one: a load test.

    Attributes:
        samples_per_device: samples that each device answers; None for its stream once.
        devices_at_once: devices that take samples at a time; the next begins when one has answered its last
            sample; None for all.
        ramp_s: seconds within which the devices start, at random times.

    Raises:
        ConfigError: a value out of range.
    """

    samples_per_device: int | None = None
    devices_at_once: int | None = None
    ramp_s: float = 5.0
    kind: Literal["closed-loop"] = "closed-loop"

    def __post_init__(self) -> None:
        if self.samples_per_device is not None and self.samples_per_device < 1:
            raise ConfigError(
                "ClosedLoop.samples_per_device must be >= 1, or None for the whole stream, "
                f"got {self.samples_per_device}"
            )
        if self.devices_at_once is not None and self.devices_at_once < 1:
            raise ConfigError(
                f"ClosedLoop.devices_at_once must be >= 1, or None for all, got {self.devices_at_once}"
            )
        if not 0 <= self.ramp_s < float("inf"):
            raise ConfigError(f"ClosedLoop.ramp_s must be finite and >= 0 seconds, got {self.ramp_s}")

    def draw(self, rng: np.random.Generator, num_devices: int, duration_s: float) -> tuple[Times, Devices]:
        """Draw the first sample of each device: times, and devices, each device at most once.

        Raises:
            ConfigError: no device, or no duration.
        """
        _check_run(num_devices, duration_s)
        time_s = rng.random(num_devices) * self.ramp_s
        device = np.flatnonzero(time_s < duration_s)
        order = np.lexsort((device, time_s[device]))
        return time_s[device][order], device[order]


Arrivals = Poisson | Diurnal | Burst | Trace | ClosedLoop


def _check_rate(owner: str, per_device_per_s: float) -> None:
    if not 0 <= per_device_per_s < float("inf"):
        raise ConfigError(
            f"{owner}.per_device_per_s must be finite and >= 0 samples per second, got {per_device_per_s}"
        )


def _check_run(num_devices: int, duration_s: float) -> None:
    if num_devices < 1:
        raise ConfigError(f"num_devices must be >= 1 to draw arrivals, got {num_devices}")
    if not 0 < duration_s < float("inf"):
        raise ConfigError(f"duration_s must be finite and > 0 seconds to draw arrivals, got {duration_s}")


def _uniform_times(rng: np.random.Generator, rate_per_s: float, from_s: float, to_s: float) -> Times:
    """Arrivals of a Poisson process between two times, ascending: draw their number, then their times."""
    expected = rate_per_s * max(0.0, to_s - from_s)
    if expected > MAX_ARRIVALS:
        raise ConfigError(
            f"{expected:.3g} arrivals are expected, at most {MAX_ARRIVALS:,} fit; "
            "lower per_device_per_s, the number of active devices or the duration"
        )
    return np.sort(from_s + rng.random(rng.poisson(expected)) * (to_s - from_s))


def _in_order(time_s: Times, device: Devices) -> tuple[Times, Devices]:
    # Sorting by two keys would take most of the time of a draw, and drawn times are rarely equal.
    if (time_s[1:] <= time_s[:-1]).any():
        order = np.lexsort((device, time_s))
        time_s, device = time_s[order], device[order]
    return time_s, device
