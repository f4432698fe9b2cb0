"""`hyperfleet fleet`: what its options mean."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hyperfleet.emulation.run_log import RunLog, differences
from hyperfleet.emulation.timeline.plan import active_devices
from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.scenario.arrival_files import write_trace
from hyperfleet.scenario.arrivals import Trace
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.named import scenario
from hyperfleet.scenario.policies import POLICIES
from hyperfleet.tracking.registry import NEWEST
from pipelines.emulate_fleet import Clock, FleetConfig, run_fleet
from pipelines.fleet_models import NEWEST_STATIC
from pipelines.show_fleet import show_fleet

REPLAYED_TRACE = "arrivals.parquet"
# Runs when no scenario is named.
FULL_LOAD = "full_load"
TRACE_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetCommand:
    """Emulate a fleet of devices.

    A scenario says who asks when, over which links and what goes wrong; options that are given change its
    fields.

    Attributes:
        scenario: name of a scenario, or a JSON file with one.
        clock: virtual computes every delay; real waits for it and asks the running service.
        devices: devices that take part; 1,000 without a scenario.
        registered: devices that exist.
        duration_s: for how long samples arrive.
        policy: when a device asks for a new head: every-sample, once-per-session, every-n, on-drift, never.
        networks: names of networks that devices are on, each as often as the others.
        codec: how heads travel, e.g. fp32 (exact), int8 or rank4; see `hyperfleet codecs`.
        seed: root of every draw.
        hosts: processes that compute for the devices; None means one a CPU of the cluster.
        data: a rendered data set (`hyperfleet data render`).
        model: personalized model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: Fine-tuning model that answers the same questions, named the same way.
        tracking_uri: MLflow store; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        generator_url: a generator that runs already; None starts one where one is asked.
        replicas: replicas of the generator.
        samples_per_device: without a scenario: questions a device asks at most.
        output: folder of log and report; None means outputs/fleet, or outputs/scenarios/<name>.
        resume: go on with the log in `output` that a stopped run left.
        replay: run the scenario of this log again, on the samples that arrived in it.
        record: write when samples arrived to this .parquet or .csv file, for `Trace` arrivals.
    """

    scenario: str | None = None
    clock: Clock = "virtual"
    devices: int | None = None
    registered: int | None = None
    duration_s: float | None = None
    policy: str | None = None
    networks: tuple[str, ...] | None = None
    codec: str | None = None
    seed: int | None = None
    hosts: int | None = None
    data: Path = Path("data/demo")
    model: str = NEWEST
    static_model: str = NEWEST_STATIC
    tracking_uri: str | None = None
    generator_url: str | None = None
    replicas: int | None = None
    samples_per_device: int | None = None
    output: Path | None = None
    resume: bool = False
    replay: Path | None = None
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.scenario is not None and self.replay is not None:
            raise ConfigError("FleetCommand.scenario and .replay: a log has a scenario of its own; give one")
        if self.record is not None and self.record.suffix not in TRACE_SUFFIXES:
            raise ConfigError(
                f"FleetCommand.record must end in {' or '.join(TRACE_SUFFIXES)}, got {self.record}"
            )
        if self.policy is not None and self.policy not in POLICIES:
            raise unknown_name("policy", self.policy, POLICIES)


def fleet(command: FleetCommand, console: Console) -> Path:
    """Run what the command says and return the report.

    Raises:
        HyperFleetError: something of it cannot be used.
    """
    chosen = chosen_scenario(command)
    output = command.output or Path("outputs/scenarios") / chosen.name
    if command.replay is not None:
        chosen = _with_recorded_arrivals(chosen, command.replay, output)
    run = run_fleet(
        FleetConfig(
            scenario=chosen,
            clock=command.clock,
            hosts=command.hosts,
            data=command.data,
            model=command.model,
            static_model=command.static_model,
            tracking_uri=command.tracking_uri,
            generator_url=command.generator_url,
            output=output,
            resume=command.resume,
        ),
        console,
    )
    if command.record is not None:
        console.print(f"arrivals: {write_trace(command.record, run.plan.time_s, run.plan.device)}")
    if command.replay is not None:
        found = differences(RunLog.open(command.replay), run.log)
        console.print(
            f"replay of {command.replay}: " + ("; ".join(found) + " differ" if found else "the same log")
        )
    return show_fleet(run, console=console, tracking_uri=command.tracking_uri).report


def chosen_scenario(command: FleetCommand) -> Scenario:
    """Return the scenario that a command names, with the fields that its options change.

    Raises:
        ConfigError: there is none, or it cannot run.
    """
    if command.replay is not None:
        base = RunLog.open(command.replay).scenario
    else:
        base = scenario(command.scenario or FULL_LOAD)
    changes: dict[str, Any] = {
        "active_devices": command.devices,
        "registered_devices": command.registered,
        "duration_s": command.duration_s,
        "policy": POLICIES[command.policy]() if command.policy is not None else None,
        "networks": command.networks,
        "codec": command.codec,
        "seed": command.seed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if command.devices is not None and command.registered is None:
        changes["registered_devices"] = max(command.devices, base.registered_devices)
    if command.replicas is not None:
        changes["cloud"] = dataclasses.replace(base.cloud, replicas=command.replicas)
    return dataclasses.replace(base, **changes)


def _with_recorded_arrivals(chosen: Scenario, replayed: Path, output: Path) -> Scenario:
    """Let samples arrive as they did in a log, at the same devices, whatever else is changed."""
    events = RunLog.open(replayed).events()
    arrived = events.filter(np.asarray(events["kind"].cast("string")) == "sample")
    ids = arrived["device_id"].to_numpy()
    # Positions among the active devices, which are drawn before anything else.
    active = active_devices(chosen)
    place = np.searchsorted(active, ids)
    if (place >= len(active)).any() or (active[np.minimum(place, len(active) - 1)] != ids).any():
        raise ConfigError(
            f"{replayed} has samples of devices that do not take part with this seed and these numbers of "
            "devices; replay it without changing them"
        )
    path = output.with_name(f"{output.name}-{REPLAYED_TRACE}")
    write_trace(path, arrived["time_s"].to_numpy(), place)
    return dataclasses.replace(chosen, arrivals=Trace(path=path))
