"""Drift: from some time on, a device films the scenes of another device."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """From `at_s` on, a share of the devices gets samples of a donor each: another device of the data set.

    Attributes:
        kind: "none"; "abrupt": all samples from `at_s` on; "gradual": with a probability that rises from 0
            to 1 within `width_s`; "recurring": `width_s` from the donor, `width_s` from the own device, and
            so on.
        at_s: when the drift begins, in seconds of the run.
        width_s: see `kind`; unused by an abrupt drift.
        share: share of devices that drift, drawn at random, at least one device.

    Raises:
        ConfigError: a value out of range.
    """

    kind: Literal["none", "abrupt", "gradual", "recurring"] = "none"
    at_s: float = 300.0
    width_s: float = 60.0
    share: float = 1.0

    def __post_init__(self) -> None:
        kinds = ("none", "abrupt", "gradual", "recurring")
        if self.kind not in kinds:
            raise ConfigError(f"Drift.kind must be one of {', '.join(kinds)}, got {self.kind!r}")
        if not 0 <= self.at_s < float("inf"):
            raise ConfigError(f"Drift.at_s must be finite and >= 0 seconds, got {self.at_s}")
        if not 0 < self.width_s < float("inf"):
            raise ConfigError(
                f"Drift.width_s must be finite and > 0 seconds, got {self.width_s}; "
                "a change without width is Drift(kind='abrupt')"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"Drift.share must be above 0 and at most 1, got {self.share}; no drift is Drift(kind='none')"
            )

    def sources(
        self,
        rng: np.random.Generator,
        device: Int64[np.ndarray, " arrival"],
        time_s: Float64[np.ndarray, " arrival"],
        own: Int64[np.ndarray, " active"],
        num_source_devices: int,
    ) -> Int64[np.ndarray, " arrival"]:
        """Return for each arrival the device of the data set that filmed the sample.

        The drifting devices and their donors depend on `rng` and `own` alone, not on the arrivals.

        Args:
            rng: draws the drifting devices, their donors and the samples of a gradual drift.
            device: position of each arrival's device among the active ones, from 0.
            time_s: arrival times.
            own: data set device of each active device, from 0.
            num_source_devices: number of devices in the data set.

        Raises:
            ConfigError: `own` names devices that are not in the data set, or there is no other device.
        """
        _check_own(own, num_source_devices)
        if self.kind == "none":
            source: Int64[np.ndarray, " arrival"] = own[device]
            return source
        if num_source_devices < 2:
            raise ConfigError(
                f"a drift needs at least 2 devices in the data set, got {num_source_devices}; "
                "render a larger scale or use Drift(kind='none')"
            )
        drifting = np.zeros(len(own), bool)
        drifting[rng.permutation(len(own))[: max(1, round(self.share * len(own)))]] = True
        # Uniform over the other devices: skip the own one.
        donors = rng.integers(num_source_devices - 1, size=len(own))
        donors += donors >= own
        donor: Int64[np.ndarray, " arrival"] = donors[device]
        shows_donor = drifting[device] & self._has_drifted(rng, time_s)
        return np.where(shows_donor, donor, own[device])

    def _has_drifted(
        self, rng: np.random.Generator, time_s: Float64[np.ndarray, " arrival"]
    ) -> Bool[np.ndarray, " arrival"]:
        widths = (time_s - self.at_s) / self.width_s
        if self.kind == "gradual":
            drifted: Bool[np.ndarray, " arrival"] = rng.random(len(time_s)) < widths
        elif self.kind == "recurring":
            drifted = (widths >= 0) & (np.floor(widths) % 2 == 0)
        else:
            drifted = widths >= 0
        return drifted


def _check_own(own: Int64[np.ndarray, " active"], num_source_devices: int) -> None:
    if len(own) and not 0 <= own.min() <= own.max() < num_source_devices:
        raise ConfigError(
            f"own devices must be between 0 and {num_source_devices - 1}, got {own.min()} to {own.max()}; "
            "number the devices of the data set without gaps"
        )
