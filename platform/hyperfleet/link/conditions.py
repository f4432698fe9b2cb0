"""Conditions of a device's link: throughput, round-trip time, jitter, loss, handovers and radio.

A name is in the catalogue or refers to files: `mahimahi:UP_PATH:DOWN_PATH` or `csv:UP_PATH:DOWN_PATH`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.link.energy import RADIOS
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.link.synthetic import SYNTHETIC, synthetic_trace
from hyperfleet.link.trace import RateTrace
from hyperfleet.link.trace_files import read_mahimahi, read_throughput_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkConditions:
    """One kind of link; times in seconds.

    Attributes:
        rtt_s: round-trip time without queueing; half in each direction.
        jitter_s: mean extra delay in each direction (exponential).
        loss: probability that a packet must be sent again.
        handover_every_s: mean time between two handovers, None for no handovers.
        handover_gap_s: duration of a handover, during which nothing moves.
        radio: energy model, a key of `hyperfleet.link.energy.RADIOS`.
        log_kept: logarithm of the probability that a packet is not lost.
        recorded_s: length of the longest recorded trace, 0 if both directions have constant speed.
        has_draws: True if devices on this link make random draws.

    Raises:
        ConfigError: a time is negative or not finite, the loss is outside 0 <= loss < 1, handovers leave no
            time between them, or the radio is unknown.
    """

    name: str
    label: str
    uplink: RateTrace
    downlink: RateTrace
    rtt_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    handover_every_s: float | None = None
    handover_gap_s: float = 0.0
    radio: str = "lte"
    # Computed once here: all devices of a fleet share them.
    log_kept: float = field(init=False, repr=False, compare=False)
    recorded_s: float = field(init=False, repr=False, compare=False)
    has_draws: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("rtt_s", "jitter_s", "handover_gap_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(
                    f"LinkConditions.{name} must be finite and >= 0, got {value}; write 0.0 for none"
                )
        if not 0 <= self.loss < 1:
            raise ConfigError(
                f"LinkConditions.loss must be >= 0 and < 1, got {self.loss}; a link that loses every packet "
                "is an outage: model it as a pause"
            )
        if self.handover_every_s is None:
            if self.handover_gap_s > 0:
                raise ConfigError(
                    "LinkConditions.handover_gap_s must be 0.0 without handovers, got "
                    f"{self.handover_gap_s}; set handover_every_s"
                )
        elif not self.handover_gap_s < self.handover_every_s < math.inf:
            raise ConfigError(
                "LinkConditions.handover_every_s must be finite and longer than handover_gap_s "
                f"({self.handover_gap_s} s), got {self.handover_every_s}; write None for no handovers"
            )
        if self.radio not in RADIOS:
            raise unknown_name("LinkConditions.radio", self.radio, RADIOS)
        recorded = [each.period_s for each in (self.uplink, self.downlink) if each.steady_mib_per_s is None]
        object.__setattr__(self, "log_kept", math.log1p(-self.loss))
        object.__setattr__(self, "recorded_s", max(recorded, default=0.0))
        drawn = (self.loss, self.jitter_s, self.handover_gap_s, self.recorded_s)
        object.__setattr__(self, "has_draws", any(each > 0 for each in drawn))


# Round-trip times, jitter, loss and handovers of the synthetic links are our choices, as are their speeds.
# label, radio, rtt_s, jitter_s, loss, handover_every_s, handover_gap_s
_SYNTHETIC_LINKS: Mapping[str, tuple[str, str, float, float, float, float, float]] = MappingProxyType(
    {
        "lte_walk": ("LTE, walking", "lte", 0.050, 0.008, 0.001, 90.0, 0.05),
        "lte_drive": ("LTE, driving", "lte", 0.060, 0.015, 0.004, 20.0, 0.08),
        "nr_urban": ("5G, city", "nr", 0.025, 0.004, 0.0005, 60.0, 0.05),
        "nr_mmwave": ("5G, millimetre waves", "nr", 0.015, 0.003, 0.001, 15.0, 0.10),
    }
)
# The catalogue's traces are the same in every run; DeviceLink draws the differences between devices.
_CATALOGUE_SEED = 0


def _paper(name: str) -> LinkConditions:
    profile = PAPER_NETWORKS[name]
    return LinkConditions(
        name=name,
        label=profile.label,
        uplink=RateTrace.constant(profile.uplink_mib_per_s),
        downlink=RateTrace.constant(profile.downlink_mib_per_s),
        radio="nr" if name.startswith("5g") else "lte",
    )


def _synthetic(name: str) -> LinkConditions:
    label, radio, rtt_s, jitter_s, loss, handover_every_s, handover_gap_s = _SYNTHETIC_LINKS[name]
    uplink, downlink = synthetic_trace(name, _CATALOGUE_SEED)
    return LinkConditions(
        name=name,
        label=label,
        uplink=uplink,
        downlink=downlink,
        rtt_s=rtt_s,
        jitter_s=jitter_s,
        loss=loss,
        handover_every_s=handover_every_s,
        handover_gap_s=handover_gap_s,
        radio=radio,
    )


@cache
def _made(name: str) -> LinkConditions:
    return _paper(name) if name in PAPER_NETWORKS else _synthetic(name)


class _Catalogue(Mapping[str, LinkConditions]):
    """Conditions by name, built on first access so that importing draws no trace."""

    def __getitem__(self, name: str) -> LinkConditions:
        if name not in _NAMES:
            raise KeyError(name)
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)

    def __contains__(self, name: object) -> bool:
        return name in _NAMES


_NAMES = (*PAPER_NETWORKS, *SYNTHETIC)
CONDITIONS: Mapping[str, LinkConditions] = _Catalogue()

_READERS: Mapping[str, Callable[[Path], RateTrace]] = MappingProxyType(
    {"mahimahi": read_mahimahi, "csv": read_throughput_csv}
)


def link_conditions(name: str) -> LinkConditions:
    """Return the conditions called `name`, from the catalogue or from files.

    Links from files have only the throughput of the files, without delay or loss; add these with
    `dataclasses.replace`.

    Raises:
        UnknownNameError: no conditions have that name.
        ConfigError: `name` refers to files but does not give exactly two paths.
        DataError: a file cannot be read.
    """
    kind, _, paths = name.partition(":")
    if kind in _READERS and paths:
        return _from_files(name, kind, paths)
    if name not in CONDITIONS:
        raise unknown_name("link conditions", name, (*CONDITIONS, "mahimahi:UP:DOWN", "csv:UP:DOWN"))
    return CONDITIONS[name]


@cache
def _from_files(name: str, kind: str, paths: str) -> LinkConditions:
    both = paths.split(":")
    if len(both) != 2 or not all(both):
        raise ConfigError(
            f"link conditions from files must name an uplink and a downlink file, got {name!r}; "
            f"write {kind}:UP_PATH:DOWN_PATH, with the same path twice for a symmetric link"
        )
    uplink, downlink = (_READERS[kind](Path(path)) for path in both)
    label = " / ".join(Path(path).stem for path in both)
    return LinkConditions(name=name, label=label, uplink=uplink, downlink=downlink)
