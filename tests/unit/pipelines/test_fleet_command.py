import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.errors import ConfigError, DataError, UnknownNameError
from hyperfleet.scenario.arrival_files import ArrivalFile
from hyperfleet.scenario.arrivals import ClosedLoop, Trace
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.named import SCENARIOS, flash_crowd, full_load
from hyperfleet.scenario.policies import POLICIES, Never
from pipelines import fleet_command
from pipelines.commands.fleets import FleetCommand
from pipelines.emulate_fleet import FleetConfig
from pipelines.fleet_command import fleet
from tests.worlds.toy_fleet_run import SCENARIO, SEEN, TABLE, run


def material() -> Material:
    return Material.of(TABLE.device_id, SEEN)


def chosen(command: FleetCommand) -> Scenario:
    return command.chosen(command.base())


@dataclasses.dataclass
class Ran:
    """Runs that a command requested, and the made-up log of each run."""

    configs: list[FleetConfig]
    printed: io.StringIO
    log: RunLog

    @property
    def config(self) -> FleetConfig:
        (config,) = self.configs
        return config

    @property
    def plan(self) -> Plan:
        return draw_plan(self.config.scenario, material())

    def run(self, **options: object) -> None:
        fleet(FleetCommand(**options), Console(file=self.printed, width=400))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    """The log of a run; commands only read it."""
    return run(tmp_path_factory.mktemp("replayed") / "log")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: RunLog) -> Ran:
    """Commands run in an empty folder, and what costs time is left out."""
    ran = Ran([], io.StringIO(), log)

    def run_fleet(config: FleetConfig, console: Console) -> SimpleNamespace:
        ran.configs.append(config)
        return SimpleNamespace(log=ran.log)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fleet_command, "run_fleet", run_fleet)
    monkeypatch.setattr(fleet_command, "differences", lambda first, second: [])
    monkeypatch.setattr(
        fleet_command, "show_fleet", lambda run, **_: SimpleNamespace(report=Path("report.html"))
    )
    return ran


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="a log has its own scenario"):
        FleetCommand(scenario="drift", replay=Path("log"))
    with pytest.raises(ConfigError, match=r"samples_per_device.*poisson.*change duration_s"):
        FleetCommand(scenario="drift", samples_per_device=3)
    with pytest.raises(ConfigError, match="a replay has the samples of its log"):
        FleetCommand(replay=Path("log"), samples_per_device=3)
    with pytest.raises(UnknownNameError, match=r"every-sample.*never"):
        FleetCommand(scenario="drift", policy="sometimes")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"hosts": 0}, "hosts must be >= 1"),
        ({"resume": True, "clock": "real"}, "a run in real time cannot be resumed"),
        ({"generator_url": "http://localhost:1"}, "virtual time asks no service"),
    ],
)
def test_a_run_that_cannot_be_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        FleetConfig(scenario=SCENARIO, **fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=told):
        FleetCommand(scenario="drift", **fields)  # type: ignore[arg-type]


def test_what_is_not_there_is_told(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="flaky_uplink"):
        ran.run(scenario="flaky")
    with pytest.raises(DataError, match=r"none\.json"):
        ran.run(scenario="none.json")
    with pytest.raises(DataError, match="holds no log of a run"):
        ran.run(replay=tmp_path / "none")
    with pytest.raises(ConfigError, match="active_devices"):
        ran.run(scenario="drift", devices=0)
    with pytest.raises(ConfigError, match="active_devices"):
        ran.run(scenario="drift", devices=20, registered=10)
    assert ran.configs == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_named_scenario_is_run_as_it_is(ran: Ran, name: str) -> None:
    ran.run(scenario=name)
    config = ran.config
    assert config == FleetConfig(scenario=SCENARIOS[name](), output=Path("outputs/scenarios") / name)


def test_options_change_fields_of_the_scenario_and_nothing_else(tmp_path: Path) -> None:
    base = flash_crowd()
    changes = {
        "devices": 7,
        "registered": 70,
        "duration_s": 12.0,
        "policy": "never",
        "networks": ("4g-5", "4g-15"),
        "codec": "int8",
        "seed": 0,
        "replicas": 3,
    }
    path = dataclasses.replace(base, seed=9).save(tmp_path / "own.json")
    expected = dataclasses.replace(
        base,
        active_devices=7,
        registered_devices=70,
        duration_s=12.0,
        policy=Never(),
        networks=("4g-5", "4g-15"),
        codec="int8",
        seed=0,
        cloud=dataclasses.replace(base.cloud, replicas=3),
    )
    assert chosen(FleetCommand(scenario=str(path), **changes)) == expected  # type: ignore[arg-type]
    for name, make in POLICIES.items():
        assert chosen(FleetCommand(scenario="drift", policy=name)).policy == make()


def test_more_devices_than_are_registered_are_registered_too() -> None:
    more = chosen(FleetCommand(scenario="drift", devices=5000))
    assert (more.active_devices, more.registered_devices) == (5000, 5000)
    less = chosen(FleetCommand(scenario="drift", devices=5))
    assert (less.active_devices, less.registered_devices) == (5, 1000)


def test_without_a_scenario_it_is_full_load(ran: Ran) -> None:
    ran.run()
    assert ran.config.scenario == full_load()


def test_samples_per_device_ends_a_closed_loop(ran: Ran) -> None:
    ran.run(samples_per_device=6)
    assert ran.config.scenario.arrivals == dataclasses.replace(full_load().arrivals, samples_per_device=6)
    with pytest.raises(ConfigError, match="samples_per_device"):
        FleetCommand(samples_per_device=0)


def test_a_replay_has_the_arrivals_of_its_log(ran: Ran, log: RunLog, tmp_path: Path) -> None:
    ran.run(replay=log.folder, output=tmp_path / "again")
    config = ran.config
    assert isinstance(config.scenario.arrivals, Trace)
    assert dataclasses.replace(config.scenario, arrivals=log.scenario.arrivals) == log.scenario
    assert config.output == tmp_path / "again"
    first, again = draw_plan(SCENARIO, material()), ran.plan
    for field in dataclasses.fields(Plan):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert "the same log" in ran.printed.getvalue()


def test_a_replay_may_change_what_the_arrivals_do_not_hang_on(ran: Ran, log: RunLog, tmp_path: Path) -> None:
    ran.run(replay=log.folder, output=tmp_path / "again", policy="never", networks=("4g-5",))
    assert ran.config.scenario.policy == Never()
    np.testing.assert_array_equal(ran.plan.time_s, draw_plan(SCENARIO, material()).time_s)


@pytest.mark.parametrize("change", [{"seed": 1}, {"devices": 5}, {"registered": 400}], ids=str)
def test_a_replay_with_other_devices_is_refused(
    ran: Ran, log: RunLog, tmp_path: Path, change: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match="devices that do not take part"):
        ran.run(replay=log.folder, output=tmp_path / "again", **change)
    assert ran.configs == []
    assert not list(tmp_path.glob("again*"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_recorded_trace_is_what_arrived(ran: Ran, tmp_path: Path, ending: str) -> None:
    SCENARIO.save(tmp_path / "own.json")
    path = tmp_path / "new" / f"trace.{ending}"
    ran.run(scenario=str(tmp_path / "own.json"), record=path)
    recorded, plan = ArrivalFile.read(path), draw_plan(SCENARIO, material())
    np.testing.assert_array_equal(recorded.time_s, plan.time_s)
    np.testing.assert_array_equal(recorded.device, plan.device)
    again = dataclasses.replace(SCENARIO, arrivals=Trace(path=path))
    np.testing.assert_array_equal(draw_plan(again, material()).row, plan.row)


def test_a_closed_loop_is_recorded_as_it_went(ran: Ran, tmp_path: Path) -> None:
    scenario = dataclasses.replace(SCENARIO, arrivals=ClosedLoop(samples_per_device=4, ramp_s=2.0))
    ran.log = run(tmp_path / "log", scenario)
    scenario.save(tmp_path / "own.json")
    ran.run(scenario=str(tmp_path / "own.json"), record=tmp_path / "trace.csv")
    recorded = ArrivalFile.read(tmp_path / "trace.csv")
    answered = ran.log.answers().num_rows
    # The plan knows the first samples alone.
    assert len(recorded.time_s) == answered > len(draw_plan(scenario, material()).time_s)
    assert (np.diff(recorded.time_s) >= 0).all()


def test_the_log_of_a_replay_is_not_the_log_that_is_replayed(ran: Ran, log: RunLog) -> None:
    # Refused by `run_fleet`; here: nothing of the log is touched before it is.
    before = {path: path.read_bytes() for path in log.folder.rglob("*") if path.is_file()}
    ran.run(replay=log.folder, output=log.folder)
    assert {path: path.read_bytes() for path in log.folder.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="holds the log of a run"):
        RunLog.begin(ran.config.output, ran.config.scenario, {})


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"replicas": 0}, {"networks": ()}, {"codec": "x"}])
def test_values_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FleetCommand(**wrong)  # type: ignore[arg-type]


def test_arrivals_are_recorded_to_files_that_can_be_read() -> None:
    with pytest.raises(ConfigError, match=r"\.parquet or \.csv"):
        FleetCommand(scenario="drift", record=Path("arrivals.txt"))
