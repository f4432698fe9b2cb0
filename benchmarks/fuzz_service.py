"""Hostile requests of every kind to the generator's HTTP and gRPC ports; exit code 1 if a promise is broken.

The service has untrained models with full and rank-4 heads, tokens, and limits so small that it is overloaded
too. It promises: no 5xx but 503 (and 504 where a request names its own deadline), every error as a problem
detail (or Serve's own text), every request answered or closed in time, right heads afterwards, no restart, no
trace or token in a log, and no growth of memory.

    python benchmarks/fuzz_service.py [--requests 100000] [--seed 0]
"""

import argparse
import asyncio
import importlib.util
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.byte_attack import hold_slow, noise, slow_kinds, throw, torn_frames
from clients.grpc_attack import Caller, call_all
from clients.hostile_http import Maker
from clients.http_attack import attack
from clients.tally import Tally
from clients.untrained_service import ROOT, read_flags, share_the_machine
from clients.watched_service import TOKEN, Watched, running
from printed import Parser, TableConsole
from rich.table import Table

OUTPUT = Path("outputs/benchmarks/fuzz_service.json")
ENVIRONMENT = ROOT / ".benchmarks-env" / "fuzz"
LIMITS = {
    "max_features": 4,
    "max_batch_size": 8,
    "max_waiting_heads": 12,
    "max_ongoing_requests": 40,
    "max_queued_requests": 8,
    "heads_per_s": 400,
    "body_timeout_s": 3.0,
}
# Shares of all requests; the rest is HTTP, including bursts of valid requests.
SCHEMATHESIS, GRPC, NOISE, RUSH = 0.02, 0.25, 0.08, 0.2
ROUNDS, WARM_ROUNDS = 10, 3
IN_FLIGHT, RUSH_IN_FLIGHT = 32, 64
BOUND_S, SLOW_BOUND_S = 30.0, 90.0
SLOW_EACH = 3
GROWTH = 0.02
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
CHECKS += ",response_headers_conformance,unsupported_method"
OPERATIONS = 5


@dataclass(kw_only=True, slots=True)
class Run:
    """Findings of a run.

    Attributes:
        tally: every request.
        rss_mib: memory of the replica after each round.
        broken: broken promises that concern no single request.
        schemathesis: its version and its failures.
    """

    tally: Tally = field(default_factory=Tally)
    rss_mib: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    schemathesis: dict[str, Any] = field(default_factory=dict)

    @property
    def growth_mib(self) -> float:
        """Growth from the end of the warm-up to the end of the run."""
        return self.rss_mib[-1] - self.rss_mib[WARM_ROUNDS - 1]


def schemathesis_command() -> list[str]:
    """Return the command of schemathesis; install it into its own environment if it is missing here."""
    if importlib.util.find_spec("schemathesis") is not None:
        return [sys.executable, "-m", "schemathesis.cli"]
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "schemathesis"], check=True)
    return [str(python), "-m", "schemathesis.cli"]


def run_schemathesis(watched: Watched, num: int, seed: int, run: Run) -> None:
    """Test the OpenAPI document with at most about `num` requests; parameters with few values need fewer."""
    with tempfile.TemporaryDirectory() as folder:
        config, report, events = (Path(folder) / name for name in ("c.toml", "report.json", "events.ndjson"))
        # Otherwise every task would be unknown.
        config.write_text('[parameters]\n"path.task" = "open-ended-qa"\n')
        command = [*schemathesis_command(), "--config-file", str(config), "run"]
        command += [f"{watched.url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
        command += ["--checks", CHECKS, "--seed", str(seed), "--generation-database", "none"]
        command += ["--max-examples", str(max(1, num // OPERATIONS)), "--suppress-health-check", "all"]
        command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", str(BOUND_S)]
        command += ["--continue-on-failure", "--no-shrink", "--report", "json,ndjson"]
        command += ["--report-json-path", str(report), "--report-ndjson-path", str(events)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if not report.exists():
            run.broken.append(f"schemathesis did not run: {done.stdout[-300:]}{done.stderr[-300:]}")
            return
        found = json.loads(report.read_text())
        statuses = re.findall(r'"status_code": ?(\d+)', events.read_text())
    for status in statuses:
        run.tally.add("schemathesis", status, 0.0)
    run.schemathesis = {"version": found["schemathesis_version"], "failures": found["failures"]}
    for each in found["failures"]:
        run.broken.append(f"schemathesis: {each['title']}, {each['count']} times: {each['operations']}")
    if found["test_cases"]["errored"]:
        run.broken.append(f"schemathesis: {found['test_cases']['errored']} requests were not answered")


async def one_round(watched: Watched, num: int, maker: Maker, caller: Caller, run: Run) -> None:
    """Send `num` requests of all kinds."""
    rng, tally = caller.rng, run.tally
    calls, noises = int(GRPC * num), int(NOISE * num) // 4
    rush = int(RUSH * (num - calls))
    some = maker.shots(num - calls - 4 * noises - rush)
    await attack(watched.http_port, some, tally, connections=IN_FLIGHT, bound_s=BOUND_S)
    await call_all(caller, calls - calls // 4, tally, in_flight=IN_FLIGHT)
    await asyncio.gather(
        attack(
            watched.http_port,
            maker.shots(rush, ("valid",)),
            tally,
            connections=RUSH_IN_FLIGHT,
            bound_s=BOUND_S,
        ),
        call_all(caller, calls // 4, tally, in_flight=IN_FLIGHT, kinds=("valid",)),
    )
    for name, port in (("HTTP", watched.http_port), ("gRPC", watched.grpc_port)):
        for what, make in (("noise", noise), ("torn frames", torn_frames)):
            drawn = (make(rng) for _ in range(noises))
            await throw(port, f"{name} {what}", drawn, tally, in_flight=IN_FLIGHT, bound_s=BOUND_S)


async def fuzz(watched: Watched, num: int, seed: int, run: Run) -> None:
    """Send all requests while slow clients hold their connections."""
    rng = random.Random(seed)
    maker = Maker(rng, TOKEN)
    caller = Caller(rng, watched.grpc_port, TOKEN, BOUND_S)
    ports = {"HTTP": watched.http_port, "gRPC": watched.grpc_port}
    slow = [
        asyncio.create_task(
            hold_slow(
                ports[way],
                f"{way} slow: {kind}",
                sent,
                run.tally,
                answer_ends=way == "HTTP",
                bound_s=SLOW_BOUND_S,
            )
        )
        for way, kinds in slow_kinds(maker.request()).items()
        for kind, sent in kinds.items()
        for _ in range(SLOW_EACH)
    ]
    await asyncio.to_thread(run_schemathesis, watched, int(SCHEMATHESIS * num), seed, run)
    left = max(ROUNDS, num - len(slow) - run.tally.ends["schemathesis"].total())
    for number in range(ROUNDS):
        await one_round(watched, left // ROUNDS + (number < left % ROUNDS), maker, caller, run)
        run.rss_mib.append(watched.rss_mib())
    await asyncio.gather(*slow)
    await caller.close()


def look_after(watched: Watched, run: Run) -> None:
    """Record the faults of the service after all requests."""
    run.broken += [f"afterwards: {each}" for each in watched.wrong_answers()]
    run.rss_mib.append(watched.rss_mib())
    if len(watched.pids) != 1:
        run.broken.append(f"the replica was {len(watched.pids)} processes: it was started again")
    if run.growth_mib > GROWTH * run.rss_mib[WARM_ROUNDS - 1]:
        run.broken.append(f"memory grew by {run.growth_mib:.1f} MiB, more than {GROWTH:.0%}")
    run.broken += [f"{count} {what} in logs" for what, count in watched.logged().items() if count]
    if not any("429" in end for ends in run.tally.ends.values() for end in ends):
        run.broken.append("the service was never overloaded: this run shows too little")


def report(run: Run, seconds: float) -> bool:
    """Print the table, write the JSON and return whether all promises were kept."""
    console, tally = TableConsole(width=110), run.tally
    table = Table("kind", "requests", "slowest s", "outcomes")
    for kind, ends in sorted(tally.ends.items()):
        common = ", ".join(f"{end} {count:,}" for end, count in ends.most_common(9))
        table.add_row(kind, f"{ends.total():,}", f"{tally.slowest_s[kind]:.1f}", common)
    console.print(table)
    console.print(
        f"{tally.total:,} requests in {seconds:,.0f} s; replica after each round, MiB: "
        f"{[round(each) for each in run.rss_mib]}; growth after the warm-up {run.growth_mib:+.1f} MiB"
    )
    broken = run.broken + [f"{name} ({count} times)" for name, count in tally.faults.most_common()]
    for each in broken:
        console.print(f"BROKEN {each}", markup=False, highlight=False)
    figures = {
        "requests": tally.total,
        "seconds": round(seconds, 1),
        "kinds": {kind: dict(ends) for kind, ends in tally.ends.items()},
        "slowest_s": {kind: round(value, 3) for kind, value in tally.slowest_s.items()},
        "rss_mib": [round(each, 1) for each in run.rss_mib],
        "growth_mib": round(run.growth_mib, 1),
        "broken": broken,
        "examples": dict(tally.examples),
        "schemathesis": run.schemathesis,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({"benchmark": "fuzz_service", "file": str(OUTPUT), "broken": len(broken)}))
    return not broken


def main() -> None:
    """Start the service, attack it, check it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    read_flags()
    share_the_machine()
    run = Run()
    with running(with_token=True, **LIMITS) as watched:
        began = time.perf_counter()
        asyncio.run(fuzz(watched, args.requests, args.seed, run))
        look_after(watched, run)
        kept = report(run, time.perf_counter() - began)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
