"""`hyperfleet fleet`: run a scenario, record or replay its arrivals, show the result."""

import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console

from hyperfleet.emulation.run_log import RunLog, differences
from hyperfleet.emulation.timeline.plan import active_devices
from hyperfleet.errors import ConfigError
from hyperfleet.scenario.arrival_files import write_trace
from hyperfleet.scenario.arrivals import Trace
from hyperfleet.scenario.definition import Scenario
from pipelines.commands.fleets import FleetCommand
from pipelines.emulate_fleet import FleetConfig, run_fleet
from pipelines.show_fleet import show_fleet

REPLAYED_TRACE = "arrivals.parquet"


def fleet(command: FleetCommand, console: Console) -> Path:
    """Run the scenario of a command and return the report.

    Raises:
        HyperFleetError: scenario, data, models or log cannot be used.
    """
    replayed = None if command.replay is None else RunLog.open(command.replay)
    chosen = command.chosen(command.base() if replayed is None else replayed.scenario)
    output = command.output or Path("outputs/scenarios") / chosen.name
    if replayed is not None:
        trace = write_arrivals(replayed, chosen, output.with_name(f"{output.name}-{REPLAYED_TRACE}"))
        chosen = dataclasses.replace(chosen, arrivals=Trace(path=trace))
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
        console.print(f"arrivals: {write_arrivals(run.log, chosen, command.record)}")
    if replayed is not None:
        found = differences(replayed, run.log)
        console.print(
            f"replay of {command.replay}: " + ("; ".join(found) + " differ" if found else "the same log")
        )
    return show_fleet(run, console=console, tracking_uri=command.tracking_uri).report


def write_arrivals(log: RunLog, chosen: Scenario, path: Path) -> Path:
    """Write the times at which samples arrived in a log, for the devices of a scenario; return the path.

    In a closed loop the plan does not know them: a sample waits for the previous answer.

    Raises:
        ConfigError: devices of the log do not take part in the scenario.
    """
    events = log.events()
    arrived = events.filter(np.asarray(events["kind"].cast("string")) == "sample")
    ids, time_s = arrived["device_id"].to_numpy(), arrived["time_s"].to_numpy()
    # Traces count the active devices, which are drawn before anything else.
    active = active_devices(chosen)
    device = np.searchsorted(active, ids)
    if (device >= len(active)).any() or (active[np.minimum(device, len(active) - 1)] != ids).any():
        raise ConfigError(
            f"{log.folder} has samples of devices that do not take part with this seed and these numbers of "
            "devices; replay it without changing them"
        )
    order = np.lexsort((device, time_s))
    return write_trace(path, time_s[order], device[order])
