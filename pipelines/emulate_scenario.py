"""Run a scenario: in virtual time as fast as the machine allows, or in real time against the service."""

import asyncio
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
from rich.console import Console

from actors.answer_host import AnswerSpec, RemoteAnswerHost
from actors.meters import FleetMeter
from actors.node_folder import open_live_folder
from actors.placement import num_places, placed
from actors.supervised_pool import HostDeath, Job, SupervisedPool
from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.client import AsyncHttpClient
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.datasets import Corpus
from hyperfleet.device.group import check_comparable
from hyperfleet.emulation.ahead import ahead
from hyperfleet.emulation.bursts import measure_bursts
from hyperfleet.emulation.feature_table import (
    FeatureTable,
    encoding_batches,
    features_digest,
    join_parts,
    kept_features,
    live_samples,
)
from hyperfleet.emulation.inputs import check_memory, work_of
from hyperfleet.emulation.live_data import LiveData, open_live_data
from hyperfleet.emulation.real_time import RealTimeRun, run_in_real_time
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.scenario.faults import KillReplica
from hyperfleet.emulation.scenario.scenario import Scenario
from hyperfleet.emulation.scenario_run import ANSWERS_PER_WINDOW, Pairs, ScenarioRun, virtual_windows
from hyperfleet.emulation.timeline.engine import Window, Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import BaseHead
from hyperfleet.messages import ModelLabel
from hyperfleet.nn import DeviceModel
from hyperfleet.tracking.registry import NEWEST
from pipelines.fleet_models import NEWEST_STATIC, TOKEN_VARIABLE, FleetModels, check_service, open_models
from pipelines.generator_for_run import generator_for_run
from pipelines.progress import progress_bar
from pipelines.runtime import connect
from pipelines.storage import for_all_nodes
from serve_apps.faults import kill_replica

FEATURES_DIR = Path("outputs/features")
Clock = Literal["virtual", "real"]
# A device has one connection; a thousand at once are what this process and the service can hold.
MAX_CONNECTIONS = 1000
# Emulated devices share one client but not their luck: none stops asking because others wait.
NO_CIRCUIT = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioRunConfig:
    """What a scenario is run on.

    Attributes:
        scenario: what happens.
        clock: "virtual" computes every delay, "real" waits for it and asks the service.
        hosts: processes that encode and answer; None for one a CPU.
        data: folder of the data set.
        model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: the model that answers beside it.
        tracking_uri: where they are registered; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        generator_url: a service that runs already; None starts one. In real time only.
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
        if self.hosts is not None and self.hosts < 1:
            raise ConfigError(f"ScenarioRunConfig.hosts must be >= 1, or left out, got {self.hosts}")
        if self.resume and self.clock == "real":
            raise ConfigError(
                "ScenarioRunConfig.resume: a run in real time cannot go on later; start it again in another "
                "output, or run it in virtual time"
            )
        kills = any(isinstance(fault, KillReplica) for fault in self.scenario.faults)
        if kills and self.generator_url is not None and self.clock == "real":
            raise ConfigError(
                "ScenarioRunConfig.generator_url: a scenario with KillReplica kills a replica of one "
                "that is started for the run; leave the URL out, or the fault"
            )
        if self.generator_url is not None and self.clock == "virtual":
            raise ConfigError("ScenarioRunConfig.generator_url: virtual time asks no service; leave it out")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScenarioResult:
    """What a run left behind and what it took.

    Attributes:
        log: its tables.
        models: what answered.
        data: the data set, with the answer key for scoring.
        plan: devices and samples that were drawn.
        work: what a sample cost a device.
        anchor: features that heads are made from, one row a sample of the data set.
        deaths: hosts that died, with the time until others had taken over.
        features_s: seconds of encoding the data set's samples; near 0 where they were kept.
        wall_s: seconds of the run itself.
        num_hosts: processes that answered.
        real: what only a run in real time has.
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
    real: RealTimeRun | None = None


def run_scenario(config: ScenarioRunConfig, console: Console | None = None) -> ScenarioResult:
    """Run a scenario and leave its log in `config.output`; scoring is another step.

    Raises:
        HyperFleetError: scenario, data, models or log cannot be used; raised before any host starts.
        ServiceError: hosts die again and again, or the service cannot be reached.
        KeyboardInterrupt: a run in real time was stopped; its log holds what came until then.
    """
    scenario = config.scenario
    models = open_models(config.model, config.static_model, config.data, config.tracking_uri)
    personal, static = (load_device_model(each.local_dir) for each in (models.personal, models.static))
    check_comparable(personal, static)
    shared = _generator(models)
    work = _work(scenario, personal, shared.open(), models)
    text_length = models.bundle.encoder.text_length
    data = open_live_data(config.data, text_length)
    digest = features_digest(
        personal=models.personal.local_dir,
        static=models.static.local_dir,
        data=config.data,
        seed=scenario.seed,
    )
    log = _open_log(config, {"features": digest, "model": models.personal.uri, "clock": config.clock})
    connect()
    num_hosts = config.hosts or num_places("device_host")
    started = time.perf_counter()
    open_data = partial(open_live_folder, for_all_nodes(config.data), text_length)
    spec = AnswerSpec(open_data=open_data, seed=scenario.seed, codec=scenario.codec)
    table = kept_features(
        FEATURES_DIR, digest, lambda: _encode(spec, (personal, static), data, digest, num_hosts, console)
    )
    features_s = time.perf_counter() - started
    plan = draw_plan(scenario, Material.of(table.device_id, data.seen))
    started = time.perf_counter()
    real = None
    # Ahead, since who reads them also looks after the hosts.
    windows: Iterable[Window] = ahead(virtual_windows(scenario, plan, work, table))
    if config.clock == "real":
        real = _in_real_time(config, models, personal, plan, work, table, console)
        windows = real.windows
    run = ScenarioRun(scenario, plan, windows, table, log)
    deaths = _answer(run, spec, shared, table, num_hosts, _Score(config.data, models, plan), console)
    if real is not None:
        real.check()  # only now: what it brought until then is in the log
    return ScenarioResult(
        log=log,
        models=models,
        data=config.data,
        plan=plan,
        work=work,
        anchor=table.anchor,
        deaths=deaths,
        features_s=features_s,
        wall_s=time.perf_counter() - started,
        num_hosts=num_hosts,
        real=real,
    )


def _generator(models: FleetModels) -> SharedGenerator:
    module = load_generator(models.personal.local_dir)
    if not module.uploads_one_feature:
        raise ConfigError(
            f"{models.personal.uri} ({models.bundle.method}) reads several frames of a clip; a scenario "
            "sends one feature a request: name a model of another method"
        )
    return SharedGenerator.of(module)


def _work(
    scenario: Scenario, personal: DeviceModel, generator: ParameterGenerator, models: FleetModels
) -> Work:
    check_memory(scenario, personal, generator.layout)
    label = ModelLabel(model=models.personal.name, version=models.personal.version, task=models.bundle.task)
    return work_of(personal, generator, scenario.codec, label)


def _open_log(config: ScenarioRunConfig, origin: dict[str, str]) -> RunLog:
    if not config.resume:
        return RunLog.begin(config.output, config.scenario, origin)
    log = RunLog.open(config.output)
    log.check_same(config.scenario, origin)
    return log


def _encode(
    spec: AnswerSpec,
    models: tuple[DeviceModel, DeviceModel],
    data: LiveData,
    digest: str,
    num_hosts: int,
    console: Console | None,
) -> FeatureTable:
    """Let the hosts encode every live sample, each clip decoded once."""
    refs = ray.put(models)
    samples = live_samples(data)
    batches = encoding_batches(samples)
    parts: list[Any] = []
    with (
        SupervisedPool(lambda: _host().remote(spec, models=refs), num_hosts) as pool,
        progress_bar(console) as progress,
    ):
        bar = progress.add_task("encoding", total=len(samples), note="samples, once for all runs")

        def take(_: Job, part: Any) -> None:
            parts.append(part)
            progress.advance(bar, len(part.rows))

        pool.run((Job(key=i, method="encode", args=(rows,)) for i, rows in enumerate(batches)), take)
    return join_parts(samples, parts, digest=digest)


def _host() -> Any:
    return RemoteAnswerHost.options(resources=placed("device_host"))


class _Score:
    """Answers that were right so far; the answer key stays on this side."""

    def __init__(self, data: Path, models: FleetModels, plan: Plan) -> None:
        live = Corpus.open(data).split("test", models.bundle.encoder.text_length)
        order = np.argsort(live.example_id)
        self._example_id, self._label = live.example_id[order], live.label[order]
        self.num_samples = len(plan.time_s)
        self.num_answered = self.num_right = self.num_requests = self.num_fallbacks = 0

    def add(self, answers: pa.Table) -> None:
        """Count a stretch."""
        place = np.searchsorted(self._example_id, answers["example_id"].to_numpy())
        self.num_right += int((self._label[place] == answers["answer"].to_numpy()).sum())
        self.num_answered += answers.num_rows
        self.num_requests += int(answers["attempts"].to_numpy().sum())
        self.num_fallbacks += sum(reason != "" for reason in answers["fallback"].to_pylist())

    def note(self, wall_s: float) -> str:
        """Say how it goes."""
        if not self.num_answered:
            return "first answers are on their way"
        text = f"{self.num_requests:,} requests, {self.num_answered / wall_s:,.0f} answers/s"
        text += f", {100 * self.num_right / self.num_answered:.1f} % right"
        return text + (f", {self.num_fallbacks:,} fell back" if self.num_fallbacks else "")


def _answer(
    run: ScenarioRun,
    spec: AnswerSpec,
    shared: SharedGenerator,
    table: FeatureTable,
    num_hosts: int,
    score: _Score,
    console: Console | None,
) -> tuple[HostDeath, ...]:
    generator, features = ray.put(shared), ray.put(table)
    meter = FleetMeter(ray.get_runtime_context().get_job_id())
    started = time.perf_counter()
    with (
        SupervisedPool(lambda: _host().remote(spec, generator=generator, table=features), num_hosts) as pool,
        progress_bar(console) as progress,
    ):
        bar = progress.add_task("samples", total=score.num_samples, note=score.note(1.0))

        def written(answers: pa.Table) -> None:
            meter.answered(
                samples=answers.num_rows,
                requests=int(answers["attempts"].to_numpy().sum()),
                fallbacks=sum(reason != "" for reason in answers["fallback"].to_pylist()),
                deaths=len(pool.deaths),
            )
            score.add(answers)
            note = score.note(time.perf_counter() - started)
            progress.update(bar, completed=score.num_answered, note=note)

        def take(job: Job, result: Any) -> None:
            assert isinstance(job.key, Pairs)
            run.answered(job.key, *result)

        run.on_written = written
        # Which one dies is drawn by the time at which it is to happen.
        pairs = run.pairs(lambda at_s: pool.kill_one(int(at_s) % num_hosts))
        pool.run((Job(key=each, method="answer", args=(each.row, each.head_row)) for each in pairs), take)
        return tuple(pool.deaths)


def _in_real_time(
    config: ScenarioRunConfig,
    models: FleetModels,
    personal: DeviceModel,
    plan: Plan,
    work: Work,
    table: FeatureTable,
    console: Console | None,
) -> RealTimeRun:
    scenario = config.scenario
    base = BaseHead(layout=personal.layout, flat=personal.flat_head().detach())
    interrupted = threading.Event()
    with generator_for_run(
        models.personal.uri, config.tracking_uri, config.generator_url, replicas=scenario.cloud.replicas
    ) as url:
        served = check_service(url, models)
        served.check_codec(scenario.codec, base)
        client = AsyncHttpClient(
            url=url,
            layout=base.layout,
            task=served.task,
            model=served.name,
            codec=scenario.codec,
            base=base,
            token=os.environ.get(TOKEN_VARIABLE),
            max_connections=MAX_CONNECTIONS,
            # The scenario's own policy decides about more tries.
            retry=replace(scenario.retry, max_tries=1, max_hangs=NO_CIRCUIT),
        )
        with progress_bar(console) as progress:
            bar = progress.add_task("real time", total=len(plan.time_s), note="samples")

            async def run() -> RealTimeRun:
                async with client:
                    # Before the load: what the queue model that is held against it is fitted to.
                    (await measure_bursts(client, table)).save(config.output)
                    return await run_in_real_time(
                        scenario,
                        plan,
                        work,
                        table,
                        client,
                        answers_per_window=ANSWERS_PER_WINDOW,
                        kill_replica=kill_replica,
                        interrupted=interrupted,
                        on_progress=lambda now_s, done: progress.update(
                            bar, completed=done, note=f"samples, {now_s:.0f} s"
                        ),
                    )

            # In a thread of its own: a notebook's kernel has an event loop already.
            with ThreadPoolExecutor(1) as executor:
                future = executor.submit(asyncio.run, run())
                try:
                    return future.result()
                except KeyboardInterrupt as interrupt:
                    interrupted.set()
                    measured = future.result()
                    measured.ended_by = interrupt
                    return measured
