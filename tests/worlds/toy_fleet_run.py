"""A scenario of 25 devices on random features, run in this process in less than a second."""

from pathlib import Path

from hyperfleet.emulation.fleet_run import FleetRun, run_serial, virtual_windows
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, draw_plan
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import ClockSkew, CorruptReplies
from hyperfleet.scenario.policies import EveryN
from tests.worlds.toy_generators import generator_of, table_of

TABLE = table_of(30)
SEEN = {device: device % 4 != 0 for device in range(10)}
WORK = Work(encode_gmacs=0.05, apply_gmacs=0.001, uplink_bytes=768, downlink_bytes=9_000)
ORIGIN = {"features": "abc", "model": "m"}
SCENARIO = Scenario(
    name="test",
    registered_devices=500,
    active_devices=25,
    duration_s=40.0,
    arrivals=Poisson(per_device_per_s=0.5),
    networks=("lte_walk", "5g-50"),
    policy=EveryN(n=3),
    faults=(CorruptReplies(from_s=0.0, to_s=25.0, share=0.9), ClockSkew(share=0.5, skew_s=7.0)),
)
PER_WINDOW = 50


def scenario_run(scenario: Scenario, log: RunLog) -> FleetRun:
    """Return a run that has computed nothing yet."""
    plan = draw_plan(scenario, Material.of(TABLE.device_id, SEEN))
    windows = virtual_windows(scenario, plan, WORK, TABLE, answers_per_window=PER_WINDOW)
    return FleetRun(scenario, plan, windows, TABLE, log)


def run(folder: Path, scenario: Scenario = SCENARIO) -> RunLog:
    """Run a scenario in this process and return its log."""
    log = RunLog.begin(folder, scenario, ORIGIN)
    run_serial(scenario_run(scenario, log), generator_of("full"), "fp32", TABLE)
    return log
