"""Heads per second over each way to the generator, beside plain PyTorch in the same run.

One replica, one thread, heads of 1,501 answers. The rows take turns, round after round; ratios are within a
round. CPU is that of all processes of the service, without the client. Floor of the memory: read the last
layer's weights once per batch and write the heads once. Floor of the arithmetic: as many operations in one
product of large matrices, by PyTorch or NumPy, whichever is faster here. Both use one core.

    python benchmarks/generator_service.py [--rounds 3] [--seconds 4] [--default-flags]
"""

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients.closed_loop import closed_loop, require_wrk
from clients.untrained_service import (
    IN_FLIGHT,
    NUM_CLASSES,
    ROOT,
    TASK,
    features,
    keep_memory,
    read_flags,
    share_the_machine,
    write_bundles,
)
from printed import Parser, TableConsole

OUTPUT = Path("outputs/benchmarks/generator_service.json")
NUM_HOSTS = 2
BASELINE = "plain PyTorch, batch 64"
# Share of one core; an idle cluster uses a fifth.
IDLE_SHARE, SETTLE_LIMIT_S = 0.35, 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One row of one round."""

    heads_per_s: float
    cpu_ms_per_head: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def service_cpu_s() -> float:
    """CPU seconds of every process of Ray and Serve so far."""
    import psutil

    started_s = psutil.Process().create_time()
    total = 0.0
    for process in psutil.process_iter(["cmdline", "cpu_times", "create_time"]):
        words = " ".join(process.info["cmdline"] or [])
        # Another cluster on this machine started earlier.
        if process.info["create_time"] < started_s:
            continue
        if "ray::" in words or "haproxy" in words or "raylet" in words:
            times = process.info["cpu_times"]
            total += times.user + times.system
    return total


def wait_until_idle() -> None:
    """Wait until the cluster is idle: for a while after its start it uses more than one core."""
    deadline_s = time.monotonic() + SETTLE_LIMIT_S
    while time.monotonic() < deadline_s:
        before_s = service_cpu_s()
        time.sleep(2.0)
        if service_cpu_s() - before_s < 2.0 * IDLE_SHARE:
            return
    print(f"The cluster is still busy after {SETTLE_LIMIT_S:.0f} s; the first round pays for it.")


def rate_of(work: Callable[[], int], seconds: float) -> Sample:
    """Repeat `work`, which returns the number of heads made; count CPU of this process and the service's."""
    work()
    service_s, own_s, start = service_cpu_s(), time.process_time(), time.perf_counter()
    heads = 0
    latencies = []
    while (began := time.perf_counter()) < start + seconds:
        heads += work()
        latencies.append(1e3 * (time.perf_counter() - began))
    wall_s = time.perf_counter() - start
    cpu_s = service_cpu_s() - service_s + time.process_time() - own_s
    return Sample(
        heads_per_s=heads / wall_s,
        cpu_ms_per_head=1e3 * cpu_s / heads,
        p50_ms=statistics.median(latencies),
        p99_ms=max(latencies),
    )


def over_http(port: int, codec: str, model: str, seconds: float) -> Sample:
    """Load the service over HTTP; a warm-up lets it learn batch times before anything is counted."""
    url = f"http://127.0.0.1:{port}/v1/generate/{TASK}?model={model}"
    accept = f"application/x-safetensors; codec={codec}"
    body = features(1).tobytes()
    closed_loop(url, body, accept, in_flight=IN_FLIGHT, seconds=1)
    service_s = service_cpu_s()
    load = closed_loop(url, body, accept, in_flight=IN_FLIGHT, seconds=math.ceil(seconds))
    if load.refused or load.lost:
        raise RuntimeError(f"{load.refused} requests of {codec} heads were refused and {load.lost} lost")
    return Sample(
        heads_per_s=load.replies_per_s,
        cpu_ms_per_head=1e3 * (service_cpu_s() - service_s) / load.replies,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
    )


def over_grpc(port: int, codec: str, model: str, seconds: float) -> Sample:
    """Load the service over gRPC, from another process."""
    command = [sys.executable, str(ROOT / "benchmarks/clients/grpc_load.py"), "--port", str(port)]
    command += ["--task", TASK, "--model", model, "--codec", codec]
    command += ["--in-flight", str(IN_FLIGHT), "--seconds", str(seconds)]
    service_s = service_cpu_s()
    load = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # The warm-up, a fifth of the time, is served as well.
    heads = 1.2 * seconds * load["replies_per_s"]
    return Sample(
        heads_per_s=load["replies_per_s"],
        cpu_ms_per_head=1e3 * (service_cpu_s() - service_s) / heads,
        p50_ms=load["p50_ms"],
        p99_ms=load["p99_ms"],
    )


def rows(folder: Path, seconds: float) -> dict[str, Callable[[], Sample]]:
    """Start the service and return the work of each row."""
    import serve_apps
    from pipelines.runtime import connect
    from serve_apps.ports import free_port

    bundles = write_bundles(folder)
    connect(num_cpus=3)
    grpc_port = free_port("127.0.0.1", 0)
    models = ",".join(f"{name}={place}" for name, place in bundles.items())
    url = serve_apps.start(serve_apps.GeneratorArgs(model=models, grpc_port=grpc_port), port=0)
    http_port = int(url.rsplit(":", 1)[1])

    def measured(work: Callable[[], int]) -> Callable[[], Sample]:
        return lambda: rate_of(work, seconds)

    def http(codec: str, model: str = "whole") -> Callable[[], Sample]:
        return lambda: over_http(http_port, codec, model, seconds)

    def grpc(codec: str, model: str = "whole") -> Callable[[], Sample]:
        return lambda: over_grpc(grpc_port, codec, model, seconds)

    return {
        **{name: measured(work) for name, work in in_this_process(bundles).items()},
        "HTTP fp32": http("fp32"),
        "HTTP fp16": http("fp16"),
        "HTTP int8": http("int8"),
        "HTTP rank 4, cut from full heads": http("rank4"),
        "HTTP rank 4, as generated": http("rank4", "rank4"),
        "gRPC fp32": grpc("fp32"),
        "gRPC fp16": grpc("fp16"),
        "gRPC rank 4, as generated": grpc("rank4", "rank4"),
        **{name: measured(work) for name, work in in_cluster(bundles).items()},
    }


def in_this_process(bundles: dict[str, Path]) -> dict[str, Callable[[], int]]:
    """Generation alone: the module run by plain PyTorch, and our generator."""
    import torch

    from hyperfleet.bundle import load_generator
    from hyperfleet.cloud.generator import ParameterGenerator

    torch.set_num_threads(1)

    def module(size: int) -> Callable[[], int]:
        generator, asked = load_generator(bundles["whole"]), torch.from_numpy(features(size))

        def generate() -> int:
            with torch.inference_mode():
                return len(generator(asked))

        return generate

    def batches(name: str, size: int) -> Callable[[], int]:
        generator, asked = ParameterGenerator.from_bundle(bundles[name]), features(size)
        return lambda: len(generator.generate(asked))

    return {
        BASELINE: module(64),
        "plain PyTorch, batch 1": module(1),
        **floors(),
        "generator, batch 64": batches("whole", 64),
        "generator, batch 8": batches("whole", 8),
        "generator, batch 1": batches("whole", 1),
        **in_half(bundles["whole"]),
        "generator, rank 4, batch 64": batches("rank4", 64),
    }


def in_half(bundle: Path) -> dict[str, Callable[[], int]]:
    """Generation with weights in fp16 where this machine supports it; prints the error of its heads."""
    from hyperfleet.cloud.generator import ParameterGenerator
    from hyperfleet.errors import ConfigError

    try:
        half = ParameterGenerator.from_bundle(bundle, weights="fp16")
    except ConfigError as error:
        print(error)
        return {}
    exact = ParameterGenerator.from_bundle(bundle).generate(features(64)).full()
    off = (half.generate(features(64)).full() - exact).norm(dim=1) / exact.norm(dim=1)
    print(f"Largest error of 64 heads generated with fp16 weights: {off.max():.1e} of a head's norm.")

    def batches(size: int) -> Callable[[], int]:
        asked = features(size)
        return lambda: len(half.generate(asked))

    return {f"generator, weights in fp16, batch {size}": batches(size) for size in (64, 8, 1)}


def floors() -> dict[str, Callable[[], int]]:
    """Limits of memory and arithmetic on one core."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    numbers, embed = NUM_CLASSES * 97, 192
    weights, heads = torch.randn(embed, numbers), torch.empty(64, numbers)
    side = 1024
    left, right = torch.randn(side, 64 * numbers * embed // side**2), torch.empty(side, side)

    def memory(size: int) -> Callable[[], int]:
        def read_and_write() -> int:
            weights.sum()
            heads[:size].fill_(1.0)
            return size

        return read_and_write

    def with_torch() -> int:
        torch.mm(left, left.T, out=right)
        return 64

    def with_numpy() -> int:
        with threadpool_limits(1, "blas"):
            np.matmul(left.numpy(), left.numpy().T, out=right.numpy())
        return 64

    arithmetic = min(with_torch, with_numpy, key=lambda product: min(timeit.repeat(product, number=1)))

    return {
        "floor of the memory, batch 64": memory(64),
        "floor of the memory, batch 1": memory(1),
        "floor of the arithmetic, batch 64": arithmetic,
    }


def in_cluster(bundles: dict[str, Path]) -> dict[str, Callable[[], int]]:
    """Devices of the same cluster: through the handle by reference, and with an embedded generator."""
    import ray
    from ray import serve
    from ray.serve.handle import DeploymentHandle

    from hyperfleet.bundle import load_generator
    from hyperfleet.cloud.shared_generator import SharedGenerator

    # On Serve's fast path a handle belongs to the event loop that it was made in.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def by_reference() -> DeploymentHandle:
        return serve.get_app_handle("generator").options(_by_reference=True)

    handle = asyncio.run_coroutine_threadsafe(by_reference(), loop).result()

    def shards(model: str, size: int, in_flight: int) -> Callable[[], int]:
        asked = [features(size) for _ in range(in_flight)]

        async def ask() -> int:
            replies = await asyncio.gather(
                *(handle.generate_shard.remote(each, TASK, model) for each in asked)
            )
            return sum(map(len, replies))

        return lambda: asyncio.run_coroutine_threadsafe(ask(), loop).result(timeout=60)

    # As for the hosts of a fleet, which reserve no CPU from the replicas.
    @ray.remote(num_cpus=0)
    class Embedded:
        def __init__(self, shared: SharedGenerator, *, packed: bool) -> None:
            self._generator = shared.open(packed=packed)
            self._asked = features(64)

        def generate(self, num_batches: int) -> int:
            return sum(len(self._generator.generate(self._asked)) for _ in range(num_batches))

    shared = ray.put(SharedGenerator.of(load_generator(bundles["whole"])))

    def embedded(*, packed: bool) -> Callable[[], int]:
        pool = [Embedded.remote(shared, packed=packed) for _ in range(NUM_HOSTS)]
        return lambda: sum(ray.get([host.generate.remote(4) for host in pool]))

    return {
        "handle, one call per device": shards("whole", 1, IN_FLIGHT),
        "handle, shards of 56": shards("whole", 56, 2),
        "handle, rank 4, shards of 512": shards("rank4", 512, 2),
        "embedded in two hosts, weights mapped": embedded(packed=False),
        "embedded in two hosts, and packed": embedded(packed=True),
    }


def report(samples: dict[str, list[Sample]]) -> None:
    """Print the table and write the JSON."""
    from rich.table import Table

    table = Table("way", "heads/s", "/ PyTorch b64", "CPU-ms per head", "p50 ms", "p99 ms")
    figures = {}
    for name, own in samples.items():
        ratio = statistics.median(
            each.heads_per_s / base.heads_per_s for each, base in zip(own, samples[BASELINE], strict=True)
        )
        medians = {
            field: statistics.median(getattr(each, field) for each in own)
            for field in ("heads_per_s", "cpu_ms_per_head", "p50_ms", "p99_ms")
        }
        figures[name] = {"ratio": round(ratio, 3), **{key: round(value, 3) for key, value in medians.items()}}
        table.add_row(
            name,
            f"{medians['heads_per_s']:,.0f}",
            f"{ratio:.2f}",
            f"{medians['cpu_ms_per_head']:.3f}",
            f"{medians['p50_ms']:.1f}",
            f"{medians['p99_ms']:.1f}",
        )
    TableConsole(width=110).print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({"benchmark": "generator_service", "file": str(OUTPUT)}))


def main() -> None:
    """Run every row in every round."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per row and round")
    parser.add_argument("--default-flags", action="store_true", help="leave Serve's flags as they are")
    parser.add_argument("--only", default="", help="rows whose name holds this, beside the baseline")
    args = parser.parse_args()
    require_wrk()
    if not args.default_flags:
        read_flags()
    share_the_machine()
    keep_memory()

    from pipelines.runtime import disconnect

    with tempfile.TemporaryDirectory() as folder:
        try:
            ways = {
                name: way
                for name, way in rows(Path(folder), args.seconds).items()
                if name == BASELINE or args.only in name
            }
            samples: dict[str, list[Sample]] = {name: [] for name in ways}
            wait_until_idle()
            for _ in range(args.rounds):
                for name, way in ways.items():
                    samples[name].append(way())
            report(samples)
        finally:
            disconnect()


if __name__ == "__main__":
    main()
