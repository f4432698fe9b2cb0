"""The plan of a run: everything that can be drawn before it begins, for all devices and samples at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from hyperfleet.errors import ConfigError, EmptyStreamError
from hyperfleet.scenario.arrivals import ClosedLoop
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.profiles import DeviceProfile
from hyperfleet.seeding import numpy_generator

# Samples converted from arrays to Python numbers at a time.
_CHUNK = 65_536


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Material:
    """Samples of the data set's devices: rows of the feature table, those of one device contiguous.

    Attributes:
        device_id: devices of the data set that have live samples, ascending.
        first_row: first row of each.
        num_rows: rows of each, at least one.
        seen: whether training saw the device.
    """

    device_id: Int[np.ndarray, " source"]
    first_row: Int[np.ndarray, " source"]
    num_rows: Int[np.ndarray, " source"]
    seen: np.ndarray

    @classmethod
    def of(cls, device_of_row: Int[np.ndarray, " row"], seen: Mapping[int, bool]) -> "Material":
        """Find the rows of each device.

        Raises:
            EmptyStreamError: there is no row.
            ConfigError: the rows of a device are not contiguous.
        """
        if len(device_of_row) == 0:
            raise EmptyStreamError(
                "the data set has no live sample, expected at least one; render it again with more live clips"
            )
        if (np.diff(device_of_row) < 0).any():
            raise ConfigError("feature rows must be in the order of their devices; sort them by device_id")
        device_id, first, count = np.unique(device_of_row, return_index=True, return_counts=True)
        known = np.array([seen[int(device)] for device in device_id])
        return cls(device_id=device_id, first_row=first, num_rows=count, seen=known)

    def sources(self, profile: DeviceProfile) -> Int[np.ndarray, " chosen"]:
        """Return the data set's devices whose material a profile shows, as positions in `device_id`.

        Raises:
            ConfigError: there is none.
        """
        everything = np.arange(len(self.device_id))
        if profile.cameras == "all":
            return everything
        chosen = everything[self.seen == (profile.cameras == "seen")]
        if len(chosen) == 0:
            raise ConfigError(
                f"DeviceProfile {profile.name!r} films like {profile.cameras} devices and the data set has "
                "none; use cameras='all' or another data set"
            )
        own: np.ndarray = chosen
        return own


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Streams:
    """The samples of devices in a closed loop, one value per device; a stream restarts at its end.

    Attributes:
        first_row: row of the feature table of a device's first sample.
        num_rows: rows of its stream.
        num_samples: samples that it answers.
        devices_at_once: devices that take samples at a time.
    """

    first_row: Int[np.ndarray, " device"]
    num_rows: Int[np.ndarray, " device"]
    num_samples: Int[np.ndarray, " device"]
    devices_at_once: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """Devices (by position, 0 to active_devices - 1) and their samples in order of time.

    In a closed loop only the first sample of each device is planned; `streams` holds those that follow.

    Attributes:
        device_id: registered id of each active device, ascending.
        profile: of each device, position in the scenario's profiles.
        network: of each device, position in the scenario's networks.
        time_s: when each sample arrives.
        device: position of its device.
        number: count of the sample in its device's stream, from 0.
        row: its row of the feature table.
        streams: later samples in a closed loop; None in an open one.
    """

    device_id: Int[np.ndarray, " device"]
    profile: Int[np.ndarray, " device"]
    network: Int[np.ndarray, " device"]
    time_s: np.ndarray
    device: Int[np.ndarray, " sample"]
    number: Int[np.ndarray, " sample"]
    row: Int[np.ndarray, " sample"]
    streams: Streams | None = None

    @property
    def num_samples(self) -> int:
        """Samples of the whole run; in a closed loop fewer arrive if its duration is over first."""
        if self.streams is None:
            return len(self.time_s)
        return int(self.streams.num_samples[self.device].sum())

    def share(self, index: int, num_shares: int) -> "Plan":
        """Return the part of the plan for every `num_shares`-th device, counted from `index`."""
        own = self.device % num_shares == index
        arrays = {name: getattr(self, name)[own] for name in ("time_s", "device", "number", "row")}
        if self.streams is None:
            return replace(self, **arrays)
        at_once = -(-self.streams.devices_at_once // num_shares)
        return replace(self, **arrays, streams=replace(self.streams, devices_at_once=at_once))

    def samples(self) -> Iterator[tuple[float, int, int, int]]:
        """Yield time, device, number and row of each sample, as Python numbers."""
        for start in range(0, len(self.time_s), _CHUNK):
            part = slice(start, start + _CHUNK)
            yield from zip(
                self.time_s[part].tolist(),
                self.device[part].tolist(),
                self.number[part].tolist(),
                self.row[part].tolist(),
                strict=True,
            )


def active_devices(scenario: Scenario) -> Int[np.ndarray, " device"]:
    """Draw the ids of the devices that take part, ascending."""
    # Floyd's algorithm: time and memory grow with the chosen devices, not with the registered ones.
    chosen = numpy_generator(scenario.seed, "active devices").choice(
        scenario.registered_devices, scenario.active_devices, replace=False, shuffle=False
    )
    device_id: np.ndarray = np.sort(chosen)
    return device_id


def draw_plan(scenario: Scenario, material: Material) -> Plan:
    """Draw the devices of a scenario and all their samples.

    Registered devices that are not active cost nothing: nothing is drawn for them.

    Raises:
        ConfigError: a profile shows the material of devices that the data set does not have.
        DataError: an arrival trace cannot be read.
    """
    seed, num_devices = scenario.seed, scenario.active_devices
    device_id = active_devices(scenario)
    shares = np.array([profile.share for profile in scenario.profiles])
    profile = numpy_generator(seed, "profiles").choice(len(shares), size=num_devices, p=shares / shares.sum())
    network = numpy_generator(seed, "networks").integers(len(scenario.networks), size=num_devices)
    time_s, device = scenario.arrivals.draw(
        numpy_generator(seed, "arrivals"), num_devices, scenario.duration_s
    )
    own = np.empty(num_devices, dtype=np.int64)
    for index, each in enumerate(scenario.profiles):
        mine, sources = profile == index, material.sources(each)
        own[mine] = sources[device_id[mine] % len(sources)]
    source = scenario.drift.sources(
        numpy_generator(seed, "drift"), device, time_s, own, len(material.device_id)
    )
    number = _count_within(device)
    # A stream restarts at its end: the filmed material repeats, the run goes on.
    row = material.first_row[source] + number % material.num_rows[source]
    streams = None
    if isinstance(scenario.arrivals, ClosedLoop):
        num_rows = material.num_rows[own]
        wanted = scenario.arrivals.samples_per_device
        streams = Streams(
            first_row=material.first_row[own],
            num_rows=num_rows,
            num_samples=num_rows if wanted is None else np.full(num_devices, wanted),
            devices_at_once=scenario.arrivals.devices_at_once or num_devices,
        )
    return Plan(
        device_id=device_id,
        profile=profile,
        network=network,
        time_s=time_s,
        device=device,
        number=number,
        row=row,
        streams=streams,
    )


def _count_within(device: Int[np.ndarray, " sample"]) -> Int[np.ndarray, " sample"]:
    """Return for each sample the number of earlier samples of its device."""
    order = np.argsort(device, kind="stable")
    sorted_device = device[order]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_device) != 0])
    lengths = np.diff(np.r_[starts, len(device)])
    number = np.empty(len(device), dtype=np.int64)
    number[order] = np.arange(len(device)) - np.repeat(starts, lengths)
    return number
