"""Losses when one of two hosts is killed: 2,000 devices, a SIGKILL at a random moment of each run.

The hosts belong to the scenario's pool, which is not notified of the kill. Each run computes its timeline
anew and is compared with an undisturbed one: devices, samples, requests, host jobs, and every column of the
log. Ray and the pool stay up for all runs; a killed host's successor serves the next one. Exit code 1 if
anything was lost, doubled or different.

    python benchmarks/host_kills.py [--runs 20] [--seed 0] [--data data/smoke]
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from printed import Parser, TableConsole
from rich.console import Console
from rich.table import Table

from actors.device_host import HostSpec, RemoteDeviceHost
from actors.supervised_pool import Job, SupervisedPool
from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.client import RetryPolicy
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.feature_table import (
    FeatureTable,
    encode_all,
    features_digest,
    kept_features,
    live_samples,
)
from hyperfleet.emulation.fleet_run import FleetRun, virtual_windows
from hyperfleet.emulation.inputs import work_of
from hyperfleet.emulation.live_data import open_live_data
from hyperfleet.emulation.run_log import RunLog, differences
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.errors import HyperFleetError
from hyperfleet.messages import ModelLabel
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.drift import Drift
from hyperfleet.scenario.faults import Blackout, CorruptReplies
from hyperfleet.scenario.policies import EveryN
from hyperfleet.tracking.model_names import NEWEST, NEWEST_STATIC
from pipelines.emulate_fleet import FEATURES_DIR
from pipelines.fleet_models import open_models
from pipelines.runtime import connect, disconnect

OUTPUT = Path("outputs/benchmarks/host_kills.json")
HOSTS = 2
RECOVERY_TARGET_S = 5.0
# Part of the undisturbed wall time from which the moment of the kill is drawn.
EARLIEST, LATEST = 0.1, 0.9
HOST_START_TIMEOUT_S = 120.0
POLL_S = 0.01
# Old heads and drift turn a small data set into many pairs, and a codec that factors each head keeps the
# hosts busy. Late and damaged heads are requested again.
SCENARIO = Scenario(
    name="host_kills",
    registered_devices=2_000,
    active_devices=2_000,
    duration_s=600.0,
    arrivals=Poisson(per_device_per_s=0.03),
    drift=Drift(kind="gradual", at_s=0.0, width_s=1000.0),
    networks=("lte_drive", "nr_mmwave"),
    policy=EveryN(n=3),
    codec="rank16",
    retry=RetryPolicy(try_timeout_s=3.0, deadline_s=12.0),
    cloud=CloudModel(replicas=2),
    faults=(Blackout(from_s=200.0, to_s=230.0), CorruptReplies(from_s=300.0, to_s=400.0, share=0.3)),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """Inputs shared by all runs."""

    spec: HostSpec
    generator: SharedGenerator
    table: FeatureTable
    plan: Plan
    work: Work


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Result of one run; seconds count from its start or from the kill."""

    wall_s: float = 0.0
    killed_at_s: float = 0.0
    jobs_redone: int = 0
    noticed_s: float | None = None
    recovery_s: float | None = None
    host_back_s: float = 0.0
    deaths: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or different, and one host died."""
        return not any(self.losses.values()) and not self.differences and self.deaths == 1


class Killer(threading.Thread):
    """Kills a host of `pool` after `after_s` seconds, unless the run is over, and waits for its successor."""

    def __init__(self, pool: SupervisedPool, after_s: float, index: int) -> None:
        super().__init__(daemon=True)
        self._pool = pool
        self._after_s = after_s
        self._index = index
        self.run_is_over = threading.Event()
        self.killed_at: float | None = None
        self.back_at: float | None = None

    def run(self) -> None:
        """Wait, kill, watch."""
        if self.run_is_over.wait(self._after_s):
            return
        pid = self._pool.host_pids[self._index]
        self.killed_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        deadline = self.killed_at + HOST_START_TIMEOUT_S
        while time.perf_counter() < deadline:
            pids = self._pool.host_pids
            if len(pids) == HOSTS and pid not in pids:
                self.back_at = time.perf_counter()
                return
            time.sleep(POLL_S)


def prepare(data_folder: Path, model: str, static_model: str) -> Setup:
    """Open models and data, and encode the samples unless an earlier run kept their features."""
    models = open_models(model, static_model, data_folder, None)
    personal, static = (load_device_model(each.local_dir) for each in (models.personal, models.static))
    open_data = partial(open_live_data, data_folder.absolute(), models.bundle.encoder.text_length)
    data = open_data()
    digest = features_digest(
        personal=models.personal.local_dir,
        static=models.static.local_dir,
        data=data_folder,
        seed=SCENARIO.seed,
    )

    def encode() -> FeatureTable:
        group = DeviceGroup(personal=personal, static=static, store=data.store, seed=SCENARIO.seed)
        return encode_all(group, live_samples(data), digest=digest)

    shared = SharedGenerator.of(load_generator(models.personal.local_dir))
    table = kept_features(FEATURES_DIR, digest, encode)
    label = ModelLabel(model=models.personal.name, version=models.personal.version, task=models.bundle.task)
    return Setup(
        spec=HostSpec(open_data=open_data, seed=SCENARIO.seed),
        generator=shared,
        table=table,
        plan=draw_plan(SCENARIO, Material.of(table.device_id, data.seen)),
        work=work_of(personal, shared.open(), SCENARIO.codec, label),
    )


def run_once(setup: Setup, pool: SupervisedPool, table: Any, folder: Path) -> tuple[RunLog, Counter[int]]:
    """Run the scenario; return its log and the number of results per job."""
    log = RunLog.begin(folder, SCENARIO, {})
    windows = virtual_windows(SCENARIO, setup.plan, setup.work, setup.table)
    run = FleetRun(SCENARIO, setup.plan, windows, setup.table, log)
    results: Counter[int] = Counter()

    def jobs() -> Any:
        for number, pairs in enumerate(run.pairs()):
            results[number] = 0
            args = pairs.row, pairs.head_row, SCENARIO.codec, table
            yield Job(key=(number, pairs), method="answer", args=args)

    def take(job: Job, result: Any) -> None:
        assert isinstance(job.key, tuple)
        number, pairs = job.key
        results[number] += 1
        run.answered(pairs, *result)

    pool.run(jobs(), take)
    return log, results


def wait_for_hosts(pool: SupervisedPool, thread: Killer) -> None:
    """Run small jobs until the pool has noticed the death and the successor has started."""
    while thread.is_alive():
        pool.run([Job(key=each, method="usage") for each in range(HOSTS)], lambda job, result: None)
        time.sleep(10 * POLL_S)
    if thread.killed_at is not None and thread.back_at is None:
        sys.exit(f"no host took the place of the killed one within {HOST_START_TIMEOUT_S} s")


def jobs_lost(results: Counter[int]) -> dict[str, int]:
    """Count the hosts' jobs without a result, and those with more than one."""
    return {
        "jobs lost": sum(times == 0 for times in results.values()),
        "jobs doubled": sum(times > 1 for times in results.values()),
    }


def keys(*columns: np.ndarray) -> np.ndarray:
    """Return one number per row of integers below a million."""
    key = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        key = key * 1_000_000 + column
    return key


def compare(log: RunLog, reference: RunLog, plan: Plan) -> dict[str, int]:
    """Count devices, samples and requests that a log lacks or holds twice."""

    def requests(of: RunLog) -> np.ndarray:
        events = of.events()
        sent = events.filter(np.asarray(events["kind"].cast("string")) == "sent")
        return keys(*(sent[name].to_numpy() for name in ("device_id", "sample", "attempt")))

    answers = log.answers()
    device_id, sample = answers["device_id"].to_numpy(), answers["sample"].to_numpy()
    samples, expected = keys(device_id, sample), keys(plan.device_id[plan.device], plan.number)
    sent, expected_sent = requests(log), requests(reference)
    return {
        "devices lost": len(np.setdiff1d(plan.device_id[plan.device], device_id)),
        "samples lost": len(np.setdiff1d(expected, samples)),
        "samples doubled": len(samples) - len(np.unique(samples)),
        "requests lost": len(np.setdiff1d(expected_sent, sent)),
        "requests doubled": len(sent) - len(np.unique(sent)),
    }


def disturbed(
    setup: Setup,
    pool: SupervisedPool,
    table: Any,
    pool_started: float,
    folder: Path,
    reference: RunLog,
    kill: Killer,
) -> Outcome | None:
    """Run with a kill and compare; None if the run ended before the kill was due."""
    deaths_before = len(pool.deaths)
    start = time.perf_counter()
    kill.start()
    log, results = run_once(setup, pool, table, folder)
    kill.run_is_over.set()
    wall_s = time.perf_counter() - start
    in_run = pool.deaths[deaths_before:]
    wait_for_hosts(pool, kill)
    if kill.killed_at is None or kill.back_at is None or kill.killed_at - start > wall_s:
        return None
    outcome = Outcome(
        wall_s=wall_s,
        killed_at_s=kill.killed_at - start,
        jobs_redone=sum(death.num_jobs_redone for death in in_run),
        host_back_s=kill.back_at - kill.killed_at,
        deaths=len(pool.deaths) - deaths_before,
        losses={**compare(log, reference, setup.plan), **jobs_lost(results)},
        differences=differences(reference, log),
    )
    if in_run:
        outcome.noticed_s = pool_started + in_run[0].at_s - kill.killed_at
        outcome.recovery_s = outcome.noticed_s + (in_run[0].recovery_s or 0.0)
    return outcome


def kill_hosts(setup: Setup, num_runs: int, seed: int, console: Console) -> list[Outcome]:
    """Run undisturbed twice, then with a kill, until `num_runs` kills have hit a run."""
    generator, table = ray.put(setup.generator), ray.put(setup.table)
    drawn = random.Random(seed)
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        SupervisedPool(lambda: RemoteDeviceHost.remote(setup.spec, generator=generator), HOSTS) as pool,
    ):
        pool_started, folder = time.perf_counter(), Path(temporary)
        # The first run warms the hosts up, the second gives the duration.
        reference, _ = run_once(setup, pool, table, folder / "reference")
        start = time.perf_counter()
        again, results = run_once(setup, pool, table, folder / "again")
        wall_s = time.perf_counter() - start
        if found := differences(reference, again):
            sys.exit(f"two undisturbed runs differ: {'; '.join(found)}")
        console.print(
            f"undisturbed: {wall_s:.1f} s, {len(setup.plan.time_s):,} samples, "
            f"{reference.events().num_rows:,} events, {len(results)} jobs"
        )
        while len(outcomes) < num_runs:
            after_s, index = drawn.uniform(EARLIEST, LATEST) * wall_s, drawn.randrange(HOSTS)
            kill = Killer(pool, after_s, index)
            outcome = disturbed(setup, pool, table, pool_started, folder / "run", reference, kill)
            shutil.rmtree(folder / "run")
            if outcome is None:
                console.print(f"over before {after_s:.1f} s; repeated with another moment")
                continue
            outcomes.append(outcome)
            state = "clean" if outcome.is_clean else f"NOT CLEAN: {outcome}"
            console.print(
                f"run {len(outcomes)} of {num_runs}: killed at {outcome.killed_at_s:.1f} s: {state}"
            )
    return outcomes


def report(outcomes: list[Outcome], console: Console) -> None:
    """Print the tables and write the JSON."""
    runs = Table("run", "s", "killed at s", "jobs redone", "noticed s", "recovery s", "new host s", "clean")

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    for number, each in enumerate(outcomes, start=1):
        runs.add_row(
            str(number),
            f"{each.wall_s:.1f}",
            f"{each.killed_at_s:.1f}",
            str(each.jobs_redone),
            seconds(each.noticed_s),
            seconds(each.recovery_s),
            seconds(each.host_back_s),
            "yes" if each.is_clean else "NO",
        )
    # A host that was no longer needed had nothing to recover.
    recovery = [each.recovery_s for each in outcomes if each.recovery_s is not None]
    figures: dict[str, tuple[object, str]] = {
        "kills within a run": (len(outcomes), ""),
        "of hosts with running jobs": (sum(each.jobs_redone > 0 for each in outcomes), ""),
        **{name: (sum(each.losses[name] for each in outcomes), "0") for name in outcomes[0].losses},
        "logs that differ": (sum(bool(each.differences) for each in outcomes), "0"),
        "recovery from the kill, s, max": (
            round(max(recovery), 3) if recovery else None,
            f"<= {RECOVERY_TARGET_S}",
        ),
        "recovery from the kill, s, median": (
            round(statistics.median(recovery), 3) if recovery else None,
            "",
        ),
        "new host ready, s, max": (round(max(each.host_back_s for each in outcomes), 3), ""),
    }
    total = Table(f"{SCENARIO.active_devices:,} devices, 1 of {HOSTS} hosts killed", "all runs", "target")
    for name, (value, target) in figures.items():
        total.add_row(name, str(value), target)
    console.print(runs, total)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "figures": {name: value for name, (value, _) in figures.items()},
        "runs": [asdict(each) for each in outcomes],
    }
    OUTPUT.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps({"benchmark": "host_kills", "file": str(OUTPUT)}))


def main() -> None:
    """Kill, compare, report."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the draw of moments and hosts")
    parser.add_argument("--data", type=Path, default=Path("data/smoke"))
    parser.add_argument("--model", default=NEWEST)
    parser.add_argument("--static-model", default=NEWEST_STATIC)
    args = parser.parse_args()
    console = TableConsole(width=110)
    try:
        setup = prepare(args.data, args.model, args.static_model)
    except HyperFleetError as error:
        sys.exit(
            f"{error}\nThis needs a rendered data set and two models trained on it; "
            "`hyperfleet demo --scale smoke` makes both in data/smoke and the registry."
        )
    connect(num_cpus=HOSTS)
    try:
        outcomes = kill_hosts(setup, args.runs, args.seed, console)
    finally:
        disconnect()
    report(outcomes, console)
    if not all(outcome.is_clean for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
