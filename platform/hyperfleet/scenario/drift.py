"""Drift: what a device films changes over time, because from some moment on it films another's scenes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """From `at_s` on a share of the devices gets samples of a donor: one other device of the data set each.

    Attributes:
        kind: "none"; "abrupt": all at once; "gradual": with a probability that rises from 0 to 1 within
            `width_s`; "recurring": `width_s` of the donor's, `width_s` of their own, and so on.
        at_s: when it begins, in seconds of the run.
        width_s: see `kind`; an abrupt drift has none.
        share: part of the devices that drift, drawn at random, but at least one device.

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
                f"Drift.share must lie above 0 and up to 1, got {self.share}; no drift is Drift(kind='none')"
            )

    def sources(
        self,
        rng: np.random.Generator,
        device: Int64[np.ndarray, " arrival"],
        time_s: Float64[np.ndarray, " arrival"],
        own: Int64[np.ndarray, " active"],
        num_source_devices: int,
    ) -> Int64[np.ndarray, " arrival"]:
        """Return for each arrival the device of the data set whose material it shows.

        Which devices drift, and to whom, depends on `rng` and `own` alone, not on the arrivals.

        Args:
            rng: draws the devices that drift, their donors and, in a gradual drift, when.
            device: which of the active devices the sample arrives at, counted from 0.
            time_s: when it arrives.
            own: for each active device its own device of the data set, counted from 0.
            num_source_devices: how many devices the data set has.

        Raises:
            ConfigError: `own` names devices that the data set has not, or there is no other device to
                take samples of.
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
        # One of the others, each alike: a number below theirs, and those from the own device on one further.
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
            f"own devices must lie between 0 and {num_source_devices - 1}, got {own.min()} to {own.max()}; "
            "number the devices of the data set without gaps"
        )
