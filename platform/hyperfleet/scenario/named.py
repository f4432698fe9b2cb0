"""Named scenarios, as starting points: change any field with `dataclasses.replace`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from hyperfleet.client import RetryPolicy
from hyperfleet.errors import unknown_name
from hyperfleet.scenario.arrivals import Burst, ClosedLoop, Diurnal, Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.drift import Drift
from hyperfleet.scenario.faults import (
    Blackout,
    ClockSkew,
    CorruptReplies,
    KillHost,
    KillReplica,
    RefuseRequests,
    SlowDevices,
)
from hyperfleet.scenario.policies import EveryN, OncePerSession, OnDrift
from hyperfleet.scenario.profiles import CAMERA, OLD_PHONE, PHONE


def full_load() -> Scenario:
    """Every device answers its stream once, each sample with a head of its own, as fast as it gets them."""
    return Scenario(
        name="full_load",
        description="64 devices at a time; each takes its next sample when it has answered the previous one.",
        duration_s=86_400.0,
        # Two of the service's batches: enough to keep a replica busy, without a queue beyond its limit.
        arrivals=ClosedLoop(devices_at_once=64),
        # A load test waits for the service instead of giving up.
        retry=RetryPolicy(max_tries=1000, try_timeout_s=60.0, deadline_s=3600.0),
    )


def paper_networks() -> Scenario:
    """The four networks of both papers, a head for every sample."""
    return Scenario(
        name="paper_networks",
        description="The papers' four networks at fixed rates; every sample asks for its own head.",
        cloud=CloudModel(replicas=1),
    )


def city_commute() -> Scenario:
    """Phones on the move in two rush hours of a short day."""
    return Scenario(
        name="city_commute",
        description="Phones walk, drive and ride through cells that come and go; two rush hours.",
        duration_s=1200.0,
        profiles=(PHONE, OLD_PHONE),
        arrivals=Diurnal(per_device_per_s=0.01, period_s=600.0, amplitude=0.9, peak_at_s=150.0),
        networks=("lte_walk", "lte_drive", "nr_urban", "nr_mmwave"),
        policy=EveryN(n=4),
        retry=RetryPolicy(try_timeout_s=5.0, deadline_s=15.0),
    )


def flash_crowd() -> Scenario:
    """Everybody films at once: more requests than the generator can serve."""
    return Scenario(
        name="flash_crowd",
        description="For a minute a third of the devices asks thirty times as often; the generator refuses.",
        duration_s=300.0,
        arrivals=Burst(per_device_per_s=0.05, at_s=100.0, burst_s=60.0, factor=30.0, share=0.33),
        networks=("lte_walk", "nr_urban"),
        retry=RetryPolicy(try_timeout_s=5.0, deadline_s=10.0),
    )


def flaky_uplink() -> Scenario:
    """Everything that can go wrong, one after the other."""
    return Scenario(
        name="flaky_uplink",
        description="Blackouts, damage, refusals, slow devices, wrong clocks, dead hosts and replicas.",
        networks=("lte_drive", "nr_mmwave"),
        cloud=CloudModel(replicas=2),
        retry=RetryPolicy(try_timeout_s=3.0, deadline_s=12.0),
        faults=(
            Blackout(from_s=60.0, to_s=80.0, network="lte_drive"),
            CorruptReplies(from_s=120.0, to_s=160.0, share=0.3),
            CorruptReplies(from_s=180.0, to_s=220.0, share=0.3, truncated=True),
            RefuseRequests(from_s=240.0, to_s=280.0, share=0.5, status=429, retry_after_s=2.0),
            RefuseRequests(from_s=300.0, to_s=320.0, status=503),
            SlowDevices(from_s=360.0, to_s=400.0, share=0.2, factor=20.0),
            KillReplica(at_s=430.0, restart_s=10.0),
            KillHost(at_s=480.0),
            ClockSkew(share=0.1, skew_s=30.0),
        ),
    )


def drift() -> Scenario:
    """The filmed material changes halfway; devices ask for a head when they notice."""
    return Scenario(
        name="drift",
        description="Halfway, devices film the material of others; they ask for heads when features drift.",
        duration_s=1800.0,
        active_devices=300,
        profiles=(PHONE, CAMERA),
        arrivals=Poisson(per_device_per_s=0.1),
        drift=Drift(kind="abrupt", at_s=900.0),
        networks=("lte_walk", "nr_urban"),
        policy=OnDrift(),
    )


def capacity() -> Scenario:
    """A large population with sessions, for the cost of a fleet."""
    return Scenario(
        name="capacity",
        description="A million registered devices, ten thousand active, one head per session.",
        registered_devices=1_000_000,
        active_devices=10_000,
        duration_s=300.0,
        arrivals=Poisson(per_device_per_s=0.02),
        networks=("lte_walk", "lte_drive", "nr_urban"),
        policy=OncePerSession(gap_s=120.0),
        cloud=CloudModel(replicas=2),
    )


SCENARIOS: Mapping[str, Callable[[], Scenario]] = MappingProxyType(
    {
        make.__name__: make
        for make in (full_load, paper_networks, city_commute, flash_crowd, flaky_uplink, drift, capacity)
    }
)


def scenario(name: str) -> Scenario:
    """Return the scenario called `name`, or the one in the JSON file of that path.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
        DataError, ConfigError: the file cannot be read, or holds no scenario that can run.
    """
    if name.endswith(".json"):
        return Scenario.load(Path(name))
    if name not in SCENARIOS:
        raise unknown_name("scenario", name, SCENARIOS)
    return SCENARIOS[name]()
