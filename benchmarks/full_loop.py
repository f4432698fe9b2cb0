"""Throughput of the full loop in answers per second: timeline, link, generation, head, answer, log.

A fleet with 1,501 answers and untrained weights. Every sample of every device is another row of the feature
table, so no answer is computed twice. A head that a device keeps is made again for every host job that uses
it; the table lists the samples per head. The rows take turns, round after round; the ratio is to plain
PyTorch making full heads at batch 64 in the same round. CPU is that of all processes. Encoding is not
included: features are computed once per clip and kept.

    python benchmarks/full_loop.py [--rounds 3] [--samples 4096] [--hosts 2]
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
from clients.untrained_service import keep_memory
from printed import Parser, TableConsole
from rich.table import Table
from threadpoolctl import threadpool_limits

from actors.device_host import HostSpec, RemoteDeviceHost
from actors.supervised_pool import Job, SupervisedPool
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.emulation.answering import answer_pairs, wants_head_batches
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.fleet_run import PAIRS_PER_JOB, FleetRun, LogTables, virtual_windows
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, draw_plan
from hyperfleet.head_codecs import DEFAULT_CODEC, HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.policies import EveryN
from pipelines.runtime import connect, disconnect

OUTPUT = Path("outputs/benchmarks/full_loop.json")
LAYOUT = HeadLayout(num_classes=1501)
BASELINE = "plain PyTorch makes full heads, batch 64"
SAMPLES_PER_DEVICE = 64
# Faster rows answer more samples, so that one-time costs of a run do not show.
MORE_SAMPLES = 8
# Arrivals are drawn; with this many rows no device films more samples than it has, so none repeats.
ROWS_PER_DEVICE = 2 * SAMPLES_PER_DEVICE
# Long enough that a device seldom films again before its head arrives, which would then serve both samples.
DURATION_S = 800.0
PLAIN_HEADS = 2048
WORK = Work(encode_gmacs=0.02, apply_gmacs=1.5e-4, uplink_bytes=768, downlink_bytes=582_700)
FORMS = {
    "whole": HeadGeneratorConfig(),
    "rank4": HeadGeneratorConfig(form="low_rank", rank=4),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One row of one round; `cpu_ms` is CPU of all processes per answered sample.

    `samples_per_head` counts the samples that one generated head answered.
    """

    answers_per_s: float
    cpu_ms: float
    samples_per_head: float


def generator_of(form: str) -> HeadGenerator:
    """Return an untrained generator."""
    torch.manual_seed(0)
    return HeadGenerator(FORMS[form], LAYOUT).requires_grad_(False)


def table_of(num_samples: int) -> FeatureTable:
    """Return made-up features for the devices of `scenario_of` with as many samples."""
    rng = np.random.default_rng(0)
    num_rows = num_samples // SAMPLES_PER_DEVICE * ROWS_PER_DEVICE
    zeros = np.zeros(num_rows, np.int32)
    return FeatureTable(
        device_id=np.arange(num_rows) // ROWS_PER_DEVICE,
        example_id=np.arange(num_rows),
        anchor=rng.standard_normal((num_rows, 192), dtype=np.float32),
        hidden=rng.standard_normal((num_rows, 96), dtype=np.float32),
        base_answer=zeros,
        static_answer=zeros,
    )


def scenario_of(num_samples: int, policy_n: int) -> Scenario:
    """Return a scenario in which every device films each of its samples once, about `num_samples` in all."""
    devices = num_samples // SAMPLES_PER_DEVICE
    return Scenario(
        name="full loop",
        registered_devices=devices,
        active_devices=devices,
        duration_s=DURATION_S,
        arrivals=Poisson(per_device_per_s=SAMPLES_PER_DEVICE / DURATION_S),
        networks=("lte_walk", "nr_urban", "4g-15", "5g-50"),
        policy=EveryN(n=policy_n),
        cloud=CloudModel(replicas=1000, batch_s=0.01, head_s=0.0),
    )


def cpu_s() -> float:
    """CPU seconds of this process and its descendants."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def timed(work: Callable[[], tuple[int, int]]) -> Sample:
    """Measure `work`, which returns the numbers of samples answered and heads made."""
    before, start = cpu_s(), time.perf_counter()
    answered, made = work()
    wall_s = time.perf_counter() - start
    return Sample(
        answers_per_s=answered / wall_s,
        cpu_ms=1000 * (cpu_s() - before) / answered,
        samples_per_head=answered / made,
    )


class Loop:
    """The loop with one generator on a pool of hosts."""

    def __init__(self, form: str, table: FeatureTable, num_hosts: int) -> None:
        self._table = table
        shared, self._features = ray.put(SharedGenerator.of(generator_of(form))), ray.put(table)
        spec = HostSpec(open_data=dict, seed=0)  # type: ignore[arg-type]  # nothing is encoded
        self.pool = SupervisedPool(lambda: RemoteDeviceHost.remote(spec, generator=shared), num_hosts)

    def run(self, scenario: Scenario) -> tuple[int, int]:
        """Run a scenario on the pool; return the numbers of samples answered and of heads used."""
        material = Material.of(self._table.device_id, dict.fromkeys(range(len(self._table)), True))
        plan = draw_plan(scenario, material)
        windows = virtual_windows(scenario, plan, WORK, self._table)
        with tempfile.TemporaryDirectory() as folder:
            log = RunLog.begin(Path(folder) / "log", scenario, {})
            run = FleetRun(scenario, plan, windows, self._table, log)
            num_made = 0

            def jobs() -> Iterator[Job]:
                nonlocal num_made
                for each in run.pairs():
                    num_made += len(np.unique(each.head_row))
                    args = each.row, each.head_row, DEFAULT_CODEC, self._features
                    yield Job(key=each, method="answer", args=args)

            self.pool.run(jobs(), lambda job, result: run.answered(job.key, *result))  # type: ignore[arg-type]  # keys are Pairs
        return len(plan.time_s), num_made


def make_heads(generator: ParameterGenerator, features: np.ndarray) -> None:
    """Make heads as `answer_pairs` does, and discard them."""
    if not wants_head_batches(generator, DEFAULT_CODEC):
        for _ in generator.tiles(features):
            pass
        return
    for start in range(0, len(features), 64):
        generator.generate(features[start : start + 64])


def stages(form: str, table: FeatureTable, num_samples: int) -> dict[str, float]:
    """Return the CPU-ms per sample of each stage, run one after the other in this process."""
    scenario = scenario_of(num_samples, 1)
    material = Material.of(table.device_id, dict.fromkeys(range(len(table)), True))
    generator = SharedGenerator.of(generator_of(form)).open(packed=form != "whole")
    make_heads(generator, table.anchor[:64])  # the first call fills caches
    marks = [("", time.process_time())]

    def mark(name: str) -> None:
        marks.append((name, time.process_time()))

    plan = draw_plan(scenario, material)
    windows = list(virtual_windows(scenario, plan, WORK, table))
    mark("timeline and link")
    rows = plan.row[:2048]
    scale = len(plan.time_s) / len(rows)
    jobs = [rows[start : start + PAIRS_PER_JOB] for start in range(0, len(rows), PAIRS_PER_JOB)]
    for job in jobs:
        make_heads(generator, table.anchor[job])
    mark("generate")
    for job in jobs:
        answer_pairs(generator, table, job, job)
    mark("generate and apply")
    tables = LogTables(scenario, plan, table)
    for window in windows:
        number = len(window.answers)
        tables.events(window.events)
        tables.answers(window.answers, np.zeros(number, np.int32), np.zeros(number, np.float32))
    mark("log")
    spent = {
        name: (end - begin) * (scale if "generate" in name else 1.0)
        for (_, begin), (name, end) in itertools.pairwise(marks)
    }
    spent["apply"] = spent.pop("generate and apply") - spent["generate"]
    return {name: 1000 * seconds / len(plan.time_s) for name, seconds in spent.items()}


def plain_pytorch() -> Callable[[], tuple[int, int]]:
    """Return a function that makes full heads with one linear layer."""
    layer = torch.nn.Linear(192, LAYOUT.num_params)
    features = torch.randn(64, 192)

    def make() -> tuple[int, int]:
        with torch.inference_mode():
            for _ in range(PLAIN_HEADS // 64):
                layer(features)
        return PLAIN_HEADS, PLAIN_HEADS

    return make


def main() -> None:
    """Run and print."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4096, help="with a fresh full head each")
    parser.add_argument("--hosts", type=int, default=2)
    args = parser.parse_args()
    # As in the hosts: freed memory is kept.
    keep_memory()
    torch.set_num_threads(1)
    table = table_of(MORE_SAMPLES * args.samples)
    fresh = scenario_of(args.samples, 1)
    more_fresh, one_for_8, one_for_64 = (scenario_of(MORE_SAMPLES * args.samples, n) for n in (1, 8, 64))
    connect(num_cpus=args.hosts)
    rounds: dict[str, list[Sample]] = {}
    try:
        whole, low = Loop("whole", table, args.hosts), Loop("rank4", table, args.hosts)
        with whole.pool, low.pool:
            rows: dict[str, Callable[[], tuple[int, int]]] = {
                BASELINE: plain_pytorch(),
                "full heads, a fresh one per sample": lambda: whole.run(fresh),
                "full heads, kept for 8 samples": lambda: whole.run(one_for_8),
                "full heads, kept for 64 samples": lambda: whole.run(one_for_64),
                "rank 4, a fresh one per sample": lambda: low.run(more_fresh),
                "rank 4, kept for 8 samples": lambda: low.run(one_for_8),
            }
            for _ in range(args.rounds + 1):
                for name, work in rows.items():
                    rounds.setdefault(name, []).append(timed(work))
    finally:
        disconnect()
    # As on the hosts; CPU counts all threads.
    with threadpool_limits(1, "blas"):
        split = {form: stages(form, table, args.samples) for form in FORMS}
    show(rounds, split, args.hosts)


def show(rounds: dict[str, list[Sample]], split: dict[str, dict[str, float]], num_hosts: int) -> None:
    """Print medians over all rounds but the first, and write all values as JSON."""
    console = TableConsole(width=120)
    table = Table(title=f"Full loop on {num_hosts} hosts")
    for column in ("", "answers/s", "of plain PyTorch", "CPU-ms per sample", "samples per head"):
        table.add_column(column, justify="left" if not column else "right")
    for name, samples in rounds.items():
        ratio = statistics.median(
            own.answers_per_s / base.answers_per_s
            for own, base in zip(samples[1:], rounds[BASELINE][1:], strict=True)
        )
        table.add_row(
            name,
            f"{statistics.median(each.answers_per_s for each in samples[1:]):,.0f}",
            f"{ratio:.2f}",
            f"{statistics.median(each.cpu_ms for each in samples[1:]):.3f}",
            f"{statistics.median(each.samples_per_head for each in samples[1:]):.2f}",
        )
    console.print(table)
    parts = Table(title="CPU-ms per sample by stage, a fresh head each")
    names = list(next(iter(split.values())))
    for column in ("", *names):
        parts.add_column(column, justify="left" if not column else "right")
    for form, spent in split.items():
        parts.add_row(form, *(f"{spent[name]:.3f}" for name in names))
    console.print(parts)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    content = {"rounds": {name: [asdict(each) for each in samples] for name, samples in rounds.items()}}
    OUTPUT.write_text(json.dumps({**content, "stages": split}, indent=2) + "\n")


if __name__ == "__main__":
    main()
