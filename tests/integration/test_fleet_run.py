"""Scenarios on real Ray: the log equals the serial oracle's on any hosts, and nothing in it is lost."""

import dataclasses
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from rich.console import Console

from actors.device_host import DeviceHost, HostSpec
from actors.supervised_pool import SupervisedPool
from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.client import RetryPolicy
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation import fleet_run
from hyperfleet.emulation.feature_table import (
    FeatureTable,
    encode_all,
    encoding_batches,
    join_parts,
    live_samples,
)
from hyperfleet.emulation.fleet_run import FleetRun, run_serial, virtual_windows
from hyperfleet.emulation.inputs import work_of
from hyperfleet.emulation.live_data import LiveData, open_live_data
from hyperfleet.emulation.run_log import RunLog, differences
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, active_devices, draw_plan
from hyperfleet.messages import ModelLabel
from hyperfleet.nn import ENCODERS, DeviceModel
from hyperfleet.scenario.arrivals import Poisson, Trace
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.faults import (
    Fault,
    KillHost,
    KillReplica,
)
from hyperfleet.scenario.named import full_load
from hyperfleet.scenario.policies import POLICIES, EveryN
from pipelines import emulate_fleet, play_fleet
from pipelines.compare_policies import PoliciesConfig, compare_policies
from pipelines.emulate_fleet import FleetConfig, FleetResult, run_fleet
from pipelines.fleet_command import FleetCommand, fleet
from pipelines.fleet_models import open_models
from pipelines.runtime import connect, disconnect
from tests.worlds.rendered_fleet import SCENARIO, Place

# Processes start one after the other where others use the cores as well.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# Small enough that four hosts have something to do and that a run has several parts.
ANSWERS_PER_WINDOW, PAIRS_PER_JOB = 150, 8


def live_data(data: Path) -> LiveData:
    return open_live_data(data, ENCODERS["tiny"](100).text_length)


def device_models(root: Path) -> tuple[DeviceModel, DeviceModel]:
    return load_device_model(root / "cdc_mmpg"), load_device_model(root / "fine_tuning")


def device_group(root: Path, live: LiveData) -> DeviceGroup:
    personal, static = device_models(root)
    return DeviceGroup(personal=personal, static=static, store=live.store, seed=SCENARIO.seed)


@dataclass
class Runs:
    """Runs of one scenario on one data set, and the oracle that they must equal."""

    place: Place
    folder: Path

    @property
    def given(self) -> dict[str, object]:
        """Options of every command."""
        return {
            "data": self.place.data,
            "model": str(self.place.model),
            "static_model": str(self.place.static_model),
            "tracking_uri": f"sqlite:///{self.folder}/mlflow.db",
        }

    def run(self, name: str, hosts: int = 1, **fields: object) -> FleetResult:
        config = {"scenario": SCENARIO, "hosts": hosts, "output": self.folder / name, **self.given, **fields}
        return run_fleet(FleetConfig(**config))  # type: ignore[arg-type]  # fields by name

    @cached_property
    def live(self) -> LiveData:
        return live_data(self.place.data)

    @cached_property
    def table(self) -> FeatureTable:
        return encode_all(device_group(self.place.root, self.live), live_samples(self.live))

    @cached_property
    def oracle(self) -> RunLog:
        """All of it in this process: features, timeline, answers, log."""
        generator = ParameterGenerator(load_generator(self.place.model))
        run, log = self.begin("oracle", self.table, self.live)
        run_serial(run, generator, "fp32", self.table)
        return log

    def begin(self, name: str, table: FeatureTable, live: LiveData) -> tuple[FleetRun, RunLog]:
        """Start a run whose answers are computed in this process."""
        plan = draw_plan(SCENARIO, Material.of(table.device_id, live.seen))
        log = RunLog.begin(self.folder / name, SCENARIO, {})
        windows = virtual_windows(SCENARIO, plan, self.work, table, ANSWERS_PER_WINDOW)
        return FleetRun(SCENARIO, plan, windows, table, log), log

    @cached_property
    def work(self) -> Work:
        models = open_models(
            str(self.place.model),
            str(self.place.static_model),
            self.place.data,
            None,
        )
        found = models.personal
        generator = ParameterGenerator(load_generator(found.local_dir))
        label = ModelLabel(model=found.name, version=found.version, task=models.bundle.task)
        return work_of(load_device_model(found.local_dir), generator, "fp32", label)


@pytest.fixture(scope="module")
def runs(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("scenario")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulate_fleet, "FEATURES_DIR", folder / "features")
        in_parts = partial(virtual_windows, answers_per_window=ANSWERS_PER_WINDOW)
        patch.setattr(emulate_fleet, "virtual_windows", in_parts)
        patch.setattr(fleet_run, "PAIRS_PER_JOB", PAIRS_PER_JOB)
        connect(num_cpus=2)
        yield Runs(place, folder)
        disconnect()


def check_nothing_is_lost(result: FleetResult) -> None:
    """Every sample of the plan has one answer in the log."""
    answers, plan = result.log.answers().to_pylist(), result.plan
    ids = plan.device_id[plan.device].tolist()
    expected = sorted(zip(ids, plan.number.tolist(), plan.row.tolist(), strict=True))
    assert sorted((each["device_id"], each["sample"], each["row"]) for each in answers) == expected


def test_the_oracle_has_something_to_say(runs: Runs) -> None:
    answers = runs.oracle.answers().to_pandas()
    assert runs.oracle.num_parts() > 4
    assert len(answers) > 600
    assert {"fresh", "cached"} <= set(answers["head"].astype(str))
    assert len(set(answers["fallback"].astype(str))) > 2
    assert answers["answer"].nunique() > 2


@pytest.mark.parametrize(
    ("hosts", "faults"),
    [
        # Four processes start for as long as the rest of this file takes.
        pytest.param(4, (), marks=pytest.mark.slow),
        (2, (KillHost(at_s=15.0), KillHost(at_s=30.0))),
    ],
    ids=["4", "2, of which some die"],
)
def test_the_log_is_that_of_the_serial_loop(runs: Runs, hosts: int, faults: tuple[Fault, ...]) -> None:
    # With one host: the command below.
    chosen = dataclasses.replace(SCENARIO, faults=SCENARIO.faults + faults)
    result = runs.run(f"{hosts} hosts", hosts, scenario=chosen)
    assert differences(runs.oracle, result.log) == []
    check_nothing_is_lost(result)
    assert result.num_hosts == hosts
    if faults:
        assert result.deaths
        # Whoever took a job over has done it.
        assert all(death.recovery_s is not None for death in result.deaths)
    else:
        assert result.deaths == ()


def test_features_are_computed_once_and_equal_those_of_one_process(runs: Runs, commands: "Commands") -> None:
    (kept,) = (runs.folder / "features").iterdir()
    table = FeatureTable.load(kept)
    for name in ("device_id", "example_id", "base_answer", "static_answer"):
        np.testing.assert_array_equal(getattr(table, name), getattr(runs.table, name), err_msg=name)
    for name in ("anchor", "hidden"):
        np.testing.assert_allclose(getattr(table, name), getattr(runs.table, name), atol=1e-5, err_msg=name)


def test_no_answer_hangs_on_a_label(runs: Runs, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(runs.place.data, data)
    path = data / "test_qa.json"
    questions = json.loads(path.read_text())
    answers = [each["answer"] for each in questions]
    shuffled = np.random.default_rng(0).permutation(answers).tolist()
    assert sum(new != old for new, old in zip(shuffled, answers, strict=True)) > 10
    path.write_text(
        json.dumps([{**each, "answer": new} for each, new in zip(questions, shuffled, strict=True)])
    )
    # Hosts without their processes: the same class, in this one.
    live = live_data(data)
    host = DeviceHost(
        HostSpec(open_data=partial(live_data, data), seed=SCENARIO.seed),
        models=device_models(runs.place.root),
        generator=SharedGenerator.of(load_generator(runs.place.model)),
    )
    host.start()
    samples = live_samples(live)
    table = join_parts(samples, [host.encode(rows) for rows in encoding_batches(samples)])
    run, log = runs.begin("shuffled", table, live)
    for pairs in run.pairs():
        run.answered(pairs, *host.answer(pairs.row, pairs.head_row, "fp32", table))
    assert differences(runs.oracle, log) == []


@dataclass
class Commands:
    """Result and output of `hyperfleet fleet`."""

    runs: Runs
    output: Path

    def fleet(self, **options: object) -> tuple[Path, str]:
        printed = io.StringIO()
        # Fields by name, whose types the checker cannot see.
        command = FleetCommand(hosts=1, **{**self.runs.given, "output": self.output, **options})  # type: ignore[arg-type]
        return fleet(command, Console(file=printed, width=200)), printed.getvalue()


@pytest.fixture(scope="module")
def commands(runs: Runs) -> Commands:
    """The whole command, run once, with a trace of what arrived."""
    SCENARIO.save(runs.folder / "small.json")
    commands = Commands(runs, runs.folder / "command")
    report, printed = commands.fleet(
        scenario=str(runs.folder / "small.json"), record=runs.folder / "trace.parquet"
    )
    assert report == commands.output / "report.html"
    assert "arrivals: " in printed
    return commands


def test_the_command_leaves_log_report_and_metrics_over_time(commands: Commands) -> None:
    log = RunLog.open(commands.output)
    assert log.scenario == SCENARIO
    assert differences(commands.runs.oracle, log) == []
    report = (commands.output / "report.html").read_text()
    assert "<svg" in report
    assert SCENARIO.name in report
    client = MlflowClient(f"sqlite:///{commands.runs.folder}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    run = client.search_runs(experiments, "tags.scenario = 'small'", order_by=["start_time ASC"])[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["clock"] == "virtual"
    history = client.get_metric_history(run.info.run_id, "over_time/accuracy")
    assert len(history) > 5
    assert len({each.step for each in history}) == len(history)
    assert all(0 <= each.value <= 1 for each in history)
    assert run.data.metrics["fleet/samples"] == log.answers().num_rows
    assert run.data.params["seed"] == "0"


def test_a_recorded_trace_is_read_and_holds_what_arrived(commands: Commands) -> None:
    trace = Trace(path=commands.runs.folder / "trace.parquet")
    time_s, device = trace.draw(np.random.default_rng(0), SCENARIO.active_devices, SCENARIO.duration_s)
    arrived = RunLog.open(commands.output).events().to_pandas()
    arrived = arrived[arrived["kind"] == "sample"]
    np.testing.assert_array_equal(time_s, arrived["time_s"])
    np.testing.assert_array_equal(active_devices(SCENARIO)[device], arrived["device_id"])


def test_a_run_that_lost_its_last_parts_goes_on_to_the_same_log(commands: Commands) -> None:
    cut = commands.runs.folder / "cut"
    shutil.copytree(commands.output, cut)
    log = RunLog.open(cut)
    num_parts = log.num_parts()
    for number, name in ((num_parts - 1, "events"), (num_parts - 1, "answers"), (num_parts - 2, "answers")):
        (cut / name / f"part-{number:05d}.parquet").unlink()
    assert log.num_parts() == num_parts - 2
    kept = (cut / "answers" / "part-00000.parquet").stat().st_mtime_ns
    commands.fleet(scenario=str(commands.runs.folder / "small.json"), output=cut, resume=True)
    assert differences(RunLog.open(commands.output), RunLog.open(cut)) == []
    assert (cut / "answers" / "part-00000.parquet").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_replay_gives_the_same_log(commands: Commands) -> None:
    again = commands.runs.folder / "again"
    _, printed = commands.fleet(replay=commands.output, output=again)
    assert f"replay of {commands.output}: the same log" in printed.replace("\n", "")
    assert differences(RunLog.open(commands.output), RunLog.open(again)) == []
    assert isinstance(RunLog.open(again).scenario.arrivals, Trace)


def test_in_real_time_every_sample_is_answered_though_a_replica_dies(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A host kills, in a process of its own.
    kill, killed = play_fleet.kill_replica, tmp_path / "killed"
    monkeypatch.setattr(play_fleet, "kill_replica", lambda: killed.open("a").write(kill() + "\n"))
    chosen = dataclasses.replace(
        SCENARIO,
        name="real",
        duration_s=4.0,
        active_devices=20,
        arrivals=Poisson(per_device_per_s=0.5),
        networks=("5g-100",),
        policy=EveryN(n=1),
        cloud=CloudModel(replicas=1),
        retry=RetryPolicy(max_tries=30, try_timeout_s=10.0, deadline_s=30.0),
        faults=(KillReplica(at_s=2.0, restart_s=1.0),),
    )
    result = runs.run("real", hosts=2, scenario=chosen, clock="real")
    check_nothing_is_lost(result)
    (name,) = killed.read_text().splitlines()
    assert name.startswith("SERVE_REPLICA::")
    assert result.real is not None
    assert result.real.wall_s >= result.plan.time_s[-1]
    answers = result.log.answers().to_pandas()
    fresh = answers[answers["head"] == "fresh"]
    assert len(fresh) > 0
    assert len(result.real.generate_s) >= len(fresh)
    # Measured, not computed: the service took its time, and said which part of it was generating.
    assert (fresh["generate_s"] > 0).all()
    events = result.log.events().to_pandas()
    faults = events[events["kind"].astype(str).str.startswith("fault")]
    assert faults["time_s"].tolist() == [2.0, 3.0]
    # A head is the one that the personal model's generator makes of the sample: answers are the serial ones.
    assert (fresh["head_row"] == fresh["row"]).all()


def test_a_closed_loop_in_real_time_answers_as_in_virtual_time(runs: Runs) -> None:
    number = runs.live.num_devices
    chosen = dataclasses.replace(
        full_load(),
        seed=SCENARIO.seed,
        registered_devices=number,
        active_devices=number,
        networks=("5g-100",),
    )
    logs = [
        runs.run(f"closed loop, {clock}", hosts=2, scenario=chosen, clock=clock).log.answers().to_pandas()
        for clock in ("virtual", "real")
    ]
    virtual, real = (log.sort_values("example_id").reset_index() for log in logs)
    # Every sample of the data set once, each with a head of its own.
    assert virtual["example_id"].tolist() == sorted(runs.table.example_id.tolist())
    assert set(virtual["head"]) == set(real["head"]) == {"fresh"}
    # The service generates in batches of other sizes, so that scores differ in their last bits.
    np.testing.assert_allclose(virtual["score"], real["score"], atol=1e-4)
    for name in ("device_id", "sample", "row", "head_row", "uplink_bytes", "downlink_bytes", "base_answer"):
        assert virtual[name].tolist() == real[name].tolist(), name
    assert (virtual["answer"] == real["answer"]).mean() > 0.99
    for _, own in real.sort_values("sample").groupby("device_id"):
        assert (own["sampled_s"].to_numpy()[1:] == own["answered_s"].to_numpy()[:-1]).all()


def test_policies_are_compared_on_hosts_that_start_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    # With faults, lest the hosts of one run pass what happened in it to the next.
    ways = [("every-n", "fp32"), ("every-n", "int8"), ("once-per-session", "fp32")]
    alone = {
        way: runs.run(
            f"alone {way}", scenario=dataclasses.replace(SCENARIO, policy=POLICIES[way[0]](), codec=way[1])
        )
        for way in ways
    }
    started: list[str] = []
    launch = SupervisedPool._launch
    monkeypatch.setattr(SupervisedPool, "_launch", lambda pool: (started.append("host"), launch(pool))[1])
    SCENARIO.save(runs.folder / "compared.json")
    config = PoliciesConfig(
        scenario=str(runs.folder / "compared.json"),
        policies=("every-n", "once-per-session"),
        codecs=("fp32", "int8"),
        hosts=1,
        output=runs.folder / "policies",
        **runs.given,  # type: ignore[arg-type]  # fields by name
    )
    page = compare_policies(config, Console(file=io.StringIO(), width=200))
    assert "once-per-session" in page.read_text()
    assert started == ["host"]
    for (policy, codec), result in alone.items():
        log = RunLog.open(config.output / "runs" / f"{policy}-{codec}")
        assert differences(result.log, log) == []
    # Else a codec that is not passed on would go unseen.
    first, second = (alone[way].log.answers()["score"].to_numpy() for way in ways[:2])
    assert (first != second).any()
