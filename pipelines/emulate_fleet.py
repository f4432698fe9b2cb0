"""Run a fleet: a scenario as fast as the machine allows, or in real time against the service."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from rich.console import Console

from actors.meters import FleetMeter
from actors.supervised_pool import HostDeath, Job
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.datasets import Corpus
from hyperfleet.emulation.ahead import ahead
from hyperfleet.emulation.fleet_run import ANSWERS_PER_WINDOW, FleetRun, Pairs, virtual_windows
from hyperfleet.emulation.inputs import check_memory, work_of
from hyperfleet.emulation.real_time import RealTimeRun
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.engine import Window, Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.messages import ModelLabel
from hyperfleet.nn import DeviceModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.tracking.model_names import NEWEST, NEWEST_STATIC
from pipelines.commands.fleets import Clock, check_run
from pipelines.fleet_hosts import FleetHosts
from pipelines.fleet_models import FleetModels
from pipelines.play_fleet import play
from pipelines.progress import progress_bar
from pipelines.runtime import connect

FEATURES_DIR = Path("outputs/features")


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetConfig:
    """Settings of a fleet run.

    Attributes:
        scenario: the scenario to run.
        clock: "virtual" computes every delay, "real" waits for it and asks the service.
        hosts: processes that play the devices; None for one per CPU.
        data: folder of the data set.
        model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: the Fine-tuning model that answers the same samples.
        tracking_uri: where they are registered; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        generator_url: a running service; None starts one. In real time only.
        output: folder of the log.
        resume: go on with the log in `output`.
    """

    scenario: Scenario
    clock: Clock = "virtual"
    hosts: int | None = None
    data: Path = Path("data/demo")
    model: str = NEWEST
    static_model: str = NEWEST_STATIC
    tracking_uri: str | None = None
    generator_url: str | None = None
    output: Path = Path("outputs/scenario")
    resume: bool = False

    def __post_init__(self) -> None:
        check_run(
            self.scenario,
            clock=self.clock,
            hosts=self.hosts,
            resume=self.resume,
            generator_url=self.generator_url,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FleetResult:
    """A finished run: its log and its costs.

    Attributes:
        log: its tables.
        models: the models that answered.
        data: the data set, with the answer key for scoring.
        plan: the devices and samples drawn.
        work: the cost of a sample on a device.
        anchor: features that heads are made from, one row per sample of the data set.
        deaths: hosts that died, with the time until others had taken over.
        features_s: seconds of encoding the data set's samples; near 0 where they were kept.
        wall_s: seconds of the run itself.
        num_hosts: processes that played the devices.
        facts: origin and size of models and data.
        real: measurements of a run in real time.
    """

    log: RunLog
    models: FleetModels
    data: Path
    plan: Plan
    work: Work
    anchor: np.ndarray
    deaths: tuple[HostDeath, ...]
    features_s: float
    wall_s: float
    num_hosts: int
    facts: list[tuple[str, str]]
    real: RealTimeRun | None = None


def run_fleet(
    config: FleetConfig, console: Console | None = None, hosts: FleetHosts | None = None
) -> FleetResult:
    """Run a scenario and write its log to `config.output`; scoring is another step.

    `hosts` come from `fleet_hosts` and may be shared by several runs; without them this run starts its own.

    Raises:
        HyperFleetError: scenario, data, models or log cannot be used; raised before any host starts.
        ServiceError: hosts die again and again, or the service cannot be reached.
        KeyboardInterrupt: a run in real time was stopped; its log holds everything up to then.
    """
    if hosts is None:
        with fleet_hosts(config) as own:
            return run_fleet(config, console, own)
    scenario, models = config.scenario, hosts.models
    assert (config.data, scenario.seed) == (hosts.data, hosts.seed)
    work = _work(scenario, hosts.personal, hosts.shared.open(), models)
    log = _open_log(config, {"features": hosts.digest, "model": models.personal.uri, "clock": config.clock})
    connect()
    started = time.perf_counter()
    table = hosts.features(FEATURES_DIR, console)
    features_s = time.perf_counter() - started
    plan = draw_plan(scenario, Material.of(table.device_id, hosts.live.seen))
    started = time.perf_counter()
    real: RealTimeRun | None = None
    deaths: tuple[HostDeath, ...] = ()
    if config.clock == "real":
        real, deaths = play(
            scenario,
            hosts,
            plan,
            work,
            generator_url=config.generator_url,
            tracking_uri=config.tracking_uri,
            output=config.output,
            console=console,
        )
        windows: Iterable[Window] = real.windows(ANSWERS_PER_WINDOW)
    else:
        # Made ahead, since the thread that reads them also supervises the hosts.
        windows = ahead(virtual_windows(scenario, plan, work, table))
    run = FleetRun(scenario, plan, windows, table, log, real.fresh if real is not None else None)
    deaths += _answer(run, hosts, scenario.codec, _Score(config.data, models, plan), console)
    if real is not None:
        real.check()  # only now: the measurements up to then are in the log
    return FleetResult(
        log=log,
        models=models,
        data=config.data,
        plan=plan,
        work=work,
        anchor=table.anchor,
        deaths=deaths,
        features_s=features_s,
        wall_s=time.perf_counter() - started,
        num_hosts=hosts.num_hosts,
        facts=hosts.facts(),
        real=real,
    )


def fleet_hosts(config: FleetConfig) -> FleetHosts:
    """Return the hosts of a run, for it and others on the same data, models and seed.

    Raises:
        HyperFleetError: data or models cannot be used.
    """
    return FleetHosts(
        data=config.data,
        model=config.model,
        static_model=config.static_model,
        tracking_uri=config.tracking_uri,
        seed=config.scenario.seed,
        hosts=config.hosts,
    )


def _work(
    scenario: Scenario, personal: DeviceModel, generator: ParameterGenerator, models: FleetModels
) -> Work:
    check_memory(scenario, personal, generator.layout)
    label = ModelLabel(model=models.personal.name, version=models.personal.version, task=models.bundle.task)
    return work_of(personal, generator, scenario.codec, label)


def _open_log(config: FleetConfig, origin: dict[str, str]) -> RunLog:
    if not config.resume:
        return RunLog.begin(config.output, config.scenario, origin)
    log = RunLog.open(config.output)
    log.check_same(config.scenario, origin)
    return log


class _Score:
    """Running count of right answers; only the driver holds the answer key."""

    def __init__(self, data: Path, models: FleetModels, plan: Plan) -> None:
        live = Corpus.open(data).split("test", models.bundle.encoder.text_length)
        order = np.argsort(live.example_id)
        self._example_id, self._label = live.example_id[order], live.label[order]
        self.num_samples = plan.num_samples
        self.num_answered = self.num_right = self.num_requests = self.num_fallbacks = 0

    def add(self, answers: pa.Table) -> None:
        """Count one window of the log."""
        place = np.searchsorted(self._example_id, answers["example_id"].to_numpy())
        self.num_right += int((self._label[place] == answers["answer"].to_numpy()).sum())
        self.num_answered += answers.num_rows
        self.num_requests += int(answers["attempts"].to_numpy().sum())
        self.num_fallbacks += sum(reason != "" for reason in answers["fallback"].to_pylist())

    def note(self, wall_s: float) -> str:
        """Return the text beside the progress bar."""
        if not self.num_answered:
            return "waiting for the first answers"
        text = f"{self.num_requests:,} requests, {self.num_answered / wall_s:,.0f} answers/s"
        text += f", {100 * self.num_right / self.num_answered:.1f} % right"
        return text + (f", {self.num_fallbacks:,} fell back" if self.num_fallbacks else "")


def _answer(
    run: FleetRun, hosts: FleetHosts, codec: str, score: _Score, console: Console | None
) -> tuple[HostDeath, ...]:
    meter = FleetMeter(ray.get_runtime_context().get_job_id())
    started = time.perf_counter()
    with hosts.pool() as pool, progress_bar(console) as progress:
        # Deaths during earlier work on the same hosts.
        num_before = len(pool.deaths)
        bar = progress.add_task("samples", total=score.num_samples, note=score.note(1.0))

        def written(answers: pa.Table) -> None:
            meter.answered(
                samples=answers.num_rows,
                requests=int(answers["attempts"].to_numpy().sum()),
                fallbacks=sum(reason != "" for reason in answers["fallback"].to_pylist()),
                deaths=len(pool.deaths) - num_before,
            )
            score.add(answers)
            note = score.note(time.perf_counter() - started)
            progress.update(bar, completed=score.num_answered, note=note)

        def take(job: Job, result: Any) -> None:
            assert isinstance(job.key, Pairs)
            run.answered(job.key, *result)

        run.on_written = written
        # The time of the kill determines the host that dies.
        pairs = run.pairs(lambda at_s: pool.kill_one(int(at_s) % hosts.num_hosts))
        jobs = (
            Job(key=each, method="answer", args=(each.row, each.head_row, codec, hosts.table_ref))
            for each in pairs
        )
        pool.run(jobs, take)
        return tuple(pool.deaths[num_before:])
