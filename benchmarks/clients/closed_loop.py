"""Closed-loop load of one binary POST: n requests in flight; each reply triggers the next request.

Uses wrk, which is written in C and takes little of the cores it shares with the server; most distributions
have it (`apt-get install wrk`). It cannot keep a fixed rate; open_loop.py does.
"""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")
# Later replies count as lost too.
REPLY_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedLoad:
    """Result of a load: replies with a status below 400, in total and per second, and everything else.

    Quantiles are wrk's: they cover all replies, plus those of the requests that a late reply delayed. `lost`
    counts broken connections. wrk does not report a request that is never answered; its connection then
    carries no more load.
    """

    replies: int
    replies_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    lost: int


def require_wrk() -> str:
    """Return the path of wrk.

    Raises:
        RuntimeError: it is not installed.
    """
    if found := shutil.which("wrk"):
        return found
    raise RuntimeError("wrk, the load generator, is not on the PATH: install it, `apt-get install wrk`")


def wrk_version() -> str:
    """Return the first line of wrk's version message."""
    # Exits with status 1 after printing it.
    return subprocess.run([require_wrk(), "--version"], capture_output=True, text=True).stdout.splitlines()[0]


def closed_loop(url: str, body: bytes, accept: str, *, in_flight: int, seconds: int) -> ClosedLoad:
    """Keep `in_flight` requests in flight for `seconds`, one per connection, from one thread.

    Raises:
        RuntimeError: wrk is missing or failed.
    """
    command = [require_wrk(), "--threads", "1", "--connections", str(in_flight), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{REPLY_TIMEOUT_S}s", "--script", str(SCRIPT), url, "--"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        done = subprocess.run(
            [*command, file.name, accept],
            capture_output=True,
            text=True,
            timeout=seconds + 2 * REPLY_TIMEOUT_S,
        )
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    replies = seen["answered"] - seen["refused"]
    return ClosedLoad(
        replies=replies,
        replies_per_s=replies / seen["seconds"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        refused=seen["refused"],
        lost=seen["lost"],
    )
