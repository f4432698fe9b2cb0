"""The same generator behind our service, LitServe, BentoML, Mosec and bare FastAPI, in the same run.

Generators: one layer 192 -> 145,597 (569 KiB per reply); one that emits factors of rank 8 or 4 (28 and 15 KiB
as float16); and 569-KiB-narrow, 48 -> 145,597 after a hidden layer, which shows the remaining cost when the
same bytes take a quarter of the arithmetic. Each runs in one worker process with one thread.

Each server is started and loaded alone, since some use a tenth of a core when idle. All servers of a size
take turns, round after round, with the same client, wrk; ratios are within a round. CPU is that of a server's
full process tree. The others are installed in .benchmarks-env/serving (0.2 GB), which the first run creates
and which uses PyTorch from the environment of this script.

    python benchmarks/service_peers.py [--rounds 3] [--seconds 4] [--replies 569-KiB 28-KiB]
"""

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from clients.closed_loop import closed_loop, wrk_version
from clients.untrained_service import IN_FLIGHT, ROOT, TASK, features, write_bundle
from peers.running_server import (
    HOST,
    PYTHON,
    RunningServer,
    fast_path,
    free_port,
    own_environment,
    prepare_environment,
    used_s,
)
from printed import Parser, TableConsole
from rich.console import Console
from rich.table import Table

OUTPUT = Path("outputs/benchmarks/service_peers.json")
PATH = f"/v1/generate/{TASK}"
# Long enough for a server to learn from its first requests, for example the time of a batch.
WARM_UP_S = 3
OURS, DEFAULT_FLAGS = "ours, fast path", "ours, default flags"
LITSERVE, FAST_QUEUE, BENTOML, MOSEC = "LitServe", "LitServe, fast_queue", "BentoML", "Mosec"
FASTAPI = "FastAPI, hand batcher"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A script of benchmarks/peers; `told` is added to its environment."""

    script: str
    python: Path = PYTHON
    told: dict[str, str] = field(default_factory=dict)


SERVERS = {
    OURS: Server(script="hyperfleet_app.py", python=Path(sys.executable)),
    DEFAULT_FLAGS: Server(script="hyperfleet_app.py", python=Path(sys.executable)),
    LITSERVE: Server(script="litserve_app.py"),
    FAST_QUEUE: Server(script="litserve_app.py", told={"PEER_FAST_QUEUE": "1"}),
    BENTOML: Server(script="bentoml_app.py"),
    MOSEC: Server(script="mosec_app.py"),
    FASTAPI: Server(script="fastapi_app.py"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Replies:
    """Requested heads: codec of our service, and generated rank, None for full heads.

    `hidden` is the width of a layer before the last one, None where there is none. `wanted` is the target
    ratio of our heads/s to a server's, `wanted_cpu` that of its CPU to ours.
    """

    codec: str
    rank: int | None
    hidden: int | None = None
    wanted: dict[str, float]
    wanted_cpu: dict[str, float] = field(default_factory=dict)


# No service on Serve has reached these.
STRETCH = {MOSEC: 1.0, FASTAPI: 1.0}
REPLIES = {
    "569-KiB": Replies(
        codec="fp32",
        rank=None,
        wanted={LITSERVE: 1.25, FAST_QUEUE: 1.25, BENTOML: 4.5, **STRETCH},
        wanted_cpu={DEFAULT_FLAGS: 7.0},
    ),
    "569-KiB-narrow": Replies(
        codec="fp32",
        rank=None,
        hidden=48,
        wanted={LITSERVE: 1.25, FAST_QUEUE: 1.25, BENTOML: 4.5, **STRETCH},
        wanted_cpu={DEFAULT_FLAGS: 7.0},
    ),
    # Our factors travel as float16: of the ranks that we have, 8 comes nearest to 31 KiB.
    "28-KiB": Replies(codec="rank8", rank=8, wanted={LITSERVE: 2.8, FAST_QUEUE: 2.8, **STRETCH}),
    "15-KiB": Replies(codec="rank4", rank=4, wanted=STRETCH),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One server in one round."""

    heads_per_s: float
    cpu_ms_per_head: float
    p50_ms: float
    p99_ms: float
    refused: int
    lost: int


def request_body() -> bytes:
    """Return the feature of every request."""
    return features(1).tobytes()


def accepted(replies: Replies) -> str:
    """Return the Accept header of every request."""
    return f"application/x-safetensors; codec={replies.codec}"


def write_generator(folder: Path, replies: Replies) -> np.ndarray:
    """Write the generator as a bundle for us and as bare layers for others; return the right reply."""
    import torch

    from hyperfleet import bundle
    from hyperfleet.nn import HeadGeneratorConfig

    is_whole = replies.rank is None
    generator = HeadGeneratorConfig(
        adr=None,
        projector_hidden=None,
        emitter_hidden=replies.hidden,
        form="full" if is_whole else "low_rank",
        rank=replies.rank or 1,
    )
    write_bundle(folder / "bundle", generator)
    loaded = bundle.load_generator(folder / "bundle")
    weight, bias = loaded.emitter.weight.detach(), loaded.emitter.bias.detach()
    layers = {"weight": weight, "bias": bias + loaded.base if is_whole else bias}
    if replies.hidden is not None:
        layers |= {"hidden_weight": loaded.f_h[0].weight.detach(), "hidden_bias": loaded.f_h[0].bias.detach()}
    dtype = torch.float32 if is_whole else torch.float16
    torch.save({**layers, "dtype": dtype}, folder / "layer.pt")
    feature = torch.frombuffer(bytearray(request_body()), dtype=torch.float32)
    with torch.inference_mode():
        numbers = loaded(feature[None]) if is_whole else loaded.generate(feature[None])
    return numbers[0].to(dtype).numpy()


@contextlib.contextmanager
def running(name: str, generator: Path, max_batch: int) -> Iterator[RunningServer]:
    """Start a server of the generator in a folder, which also receives its files."""
    from hyperfleet.head_codecs.frame import KEEP_MEMORY

    server = SERVERS[name]
    with tempfile.TemporaryDirectory() as made:
        own = Path(made)
        told = {
            **KEEP_MEMORY,
            **server.told,
            **(fast_path(own) if name == OURS else {}),
            "BENTOML_HOME": str(own / "bentoml"),
            "PEER_BUNDLE": str(generator / "bundle"),
            "PEER_LAYER": str(generator / "layer.pt"),
            "PEER_MAX_BATCH": str(max_batch),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        }
        command = [str(server.python), str(ROOT / "benchmarks" / "peers" / server.script)]
        started = RunningServer(command, own_environment(told), free_port(), own / "log")
        try:
            yield started
        finally:
            started.stop()


def check_reply(name: str, server: RunningServer, replies: Replies, expected: np.ndarray) -> None:
    """Send one request and check the reply.

    Raises:
        RuntimeError: no reply, or another head than the layer generates.
    """
    reply = server.ask(PATH, request_body(), accepted(replies))
    # Ours is a file with the data after a header.
    made = np.frombuffer(reply[-expected.nbytes :], expected.dtype)
    tolerance = 1e-5 if expected.dtype == np.float32 else 2e-3
    if made.shape != expected.shape or not np.allclose(made, expected, rtol=tolerance, atol=tolerance):
        raise RuntimeError(f"{name} answered {len(reply)} bytes that are not the head of the request")


def load(server: RunningServer, replies: Replies, seconds: int) -> Sample:
    """Load one server."""
    before = server.cpu_s()
    url = f"http://{HOST}:{server.port}{PATH}"
    seen = closed_loop(url, request_body(), accepted(replies), in_flight=IN_FLIGHT, seconds=seconds)
    cpu_s = used_s(before, server.cpu_s())
    return Sample(
        heads_per_s=seen.replies_per_s,
        cpu_ms_per_head=1e3 * cpu_s / seen.replies if seen.replies else math.inf,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        refused=seen.refused,
        lost=seen.lost,
    )


def measure(args: argparse.Namespace, replies: Replies) -> dict[str, list[Sample]]:
    """Load every server in every round; each round starts with another one."""
    names = [name for name in SERVERS if not args.only or name == OURS or args.only in name]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        expected = write_generator(folder, replies)
        for i in range(args.rounds):
            first = i % len(names)
            for name in names[first:] + names[:first]:
                with running(name, folder, args.max_batch) as server:
                    check_reply(name, server, replies, expected)
                    server.wait_until_idle()
                    load(server, replies, WARM_UP_S)
                    # Requests left open by the warm-up end in this pause, not in the measurement.
                    server.wait_until_idle()
                    samples[name].append(load(server, replies, args.seconds))
    return samples


def figures_of(samples: dict[str, list[Sample]], replies: Replies) -> dict[str, dict[str, object]]:
    """Return medians over the rounds, and ratios."""
    figures = {}
    for name, own in samples.items():
        pairs = list(zip(samples[OURS], own, strict=True))
        medians = {key: statistics.median(asdict(each)[key] for each in own) for key in asdict(own[0])}
        figures[name] = {
            **{key: round(value, 3) for key, value in medians.items()},
            "ours_times_it": round(
                statistics.median(ours.heads_per_s / max(it.heads_per_s, 1e-9) for ours, it in pairs), 3
            ),
            "wanted": replies.wanted.get(name),
            "its_cpu_times_ours": round(
                statistics.median(it.cpu_ms_per_head / ours.cpu_ms_per_head for ours, it in pairs), 3
            ),
            "wanted_cpu": replies.wanted_cpu.get(name),
            "rounds": [asdict(each) for each in own],
        }
    return figures


def show(title: str, figures: dict[str, dict[str, object]], console: Console) -> None:
    """Print one size's table."""
    table = Table(
        "server",
        "heads/s",
        "CPU-ms/head",
        "p50 ms",
        "p99 ms",
        "refused or lost",
        title=f"replies of {title}, {IN_FLIGHT} in flight",
    )
    for ratio in ("ours / it", "its CPU / ours"):
        table.add_column(ratio)
    for name, row in figures.items():
        times, cpu_times = f"{row['ours_times_it']:.2f}", f"{row['its_cpu_times_ours']:.2f}"
        table.add_row(
            name,
            f"{row['heads_per_s']:,.0f}",
            f"{row['cpu_ms_per_head']:.3f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['refused'] + row['lost']:,.0f}",
            f"{times} (>= {row['wanted']:g})" if row["wanted"] else times,
            f"{cpu_times} (>= {row['wanted_cpu']:g})" if row["wanted_cpu"] else cpu_times,
        )
    console.print(table)


def main() -> None:
    """Run every size, one after the other."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="per server and round")
    parser.add_argument("--replies", nargs="+", choices=REPLIES, default=["569-KiB", "28-KiB"])
    parser.add_argument("--max-batch", type=int, default=64, help="of every server that batches")
    parser.add_argument("--only", default="", help="servers whose name holds this, beside ours")
    args = parser.parse_args()
    # On SIGTERM, it still stops the servers it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    versions = {"wrk": wrk_version(), **prepare_environment()}
    console = TableConsole(width=120)
    sizes = {}
    for size in args.replies:
        sizes[size] = figures_of(measure(args, REPLIES[size]), REPLIES[size])
        show(size, sizes[size], console)
    settings = {"in_flight": IN_FLIGHT, "max_batch": args.max_batch, "seconds": args.seconds}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"versions": versions, **settings, "replies": sizes}, indent=2) + "\n")
    print(json.dumps({"benchmark": "service_peers", "file": str(OUTPUT)}))


if __name__ == "__main__":
    main()
