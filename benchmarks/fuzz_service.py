"""Hostile requests of every kind on the generator's HTTP and gRPC ports; exit code 1 if a promise is broken.

One untrained model whole and one of rank 4, tokens, and limits so small that the service is overloaded as well.
Promised: no 5xx but 503 (and 504 where a request names its own deadline), every error a problem detail (or
Serve's own text), every request answered or closed in time, right heads afterwards, no restart, no trace or
token in a log, and memory that does not grow.

    python benchmarks/fuzz_service.py [--requests 100000] [--seed 0]
"""

import argparse
import asyncio
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.byte_attack import hold_slow, noise, slow_kinds, throw, torn_frames
from clients.grpc_attack import Caller, call_all
from clients.hostile_http import Maker
from clients.http_attack import attack
from clients.tally import Tally
from clients.watched_service import TOKEN, Watched, running
from generator_service import ROOT, read_flags

OUTPUT = Path("outputs/benchmarks/fuzz_service.json")
ENVIRONMENT = ROOT / ".benchmarks-env" / "fuzz"
LIMITS = {
    "max_features": 4,
    "max_batch_size": 8,
    "max_waiting_heads": 12,
    "max_ongoing_requests": 24,
    "max_queued_requests": 8,
    "heads_per_s": 400,
    "body_timeout_s": 3.0,
}
# Of all requests; the rest is HTTP.
SCHEMATHESIS, GRPC, NOISE = 0.05, 0.25, 0.10
ROUNDS, WARM_ROUNDS = 10, 3
IN_FLIGHT = 32
BOUND_S = 30.0
SLOW_EACH = 3
# Where RSS is as large as the largest batch made it, rounds differ by no more than this.
GROWTH_MIB, GROWTH = 16.0, 0.02
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
CHECKS += ",response_headers_conformance,unsupported_method"


@dataclass(kw_only=True, slots=True)
class Run:
    """What a run found beside its tally."""

    rss_mib: list[float]
    broken: list[str]
    schemathesis: dict[str, Any]
    seconds: float = 0.0


def schemathesis_command() -> list[str]:
    """Return how to call schemathesis, which is installed beside the project where it is not part of it."""
    if importlib.util.find_spec("schemathesis") is not None:
        return [sys.executable, "-m", "schemathesis.cli"]
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "schemathesis"], check=True)
    return [str(python), "-m", "schemathesis.cli"]


def run_schemathesis(watched: Watched, num: int, seed: int, tally: Tally) -> dict[str, Any]:
    """Test the OpenAPI document with about `num` requests."""
    command = schemathesis_command()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.ndjson"
        command += ["run", f"{watched.url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
        command += ["--checks", CHECKS, "--seed", str(seed), "--generation-database", "none", "--no-color"]
        # Five operations; what is told of the count is measured below.
        command += ["--max-examples", str(max(1, num // 5)), "--suppress-health-check", "all", "--no-shrink"]
        command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", str(BOUND_S)]
        command += ["--continue-on-failure", "--report", "ndjson", "--report-ndjson-path", str(report)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        return {"code": done.returncode, "seconds": time.perf_counter() - began, "output": done.stdout}


def main() -> None:
    pass
