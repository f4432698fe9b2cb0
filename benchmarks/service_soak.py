"""Soak test of the service: highest sustained rate, latency at 70 % of it, memory over many requests.

Heads of 1,501 answers over HTTP on Serve's fast path, one replica. The load is an open loop: requests are due
at times fixed in advance and latency counts from then. Exit code 1 if a target is missed.

    python benchmarks/service_soak.py [--requests 100000] [--codec fp32] [--seconds 10]
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clients.closed_loop import closed_loop, require_wrk
from clients.untrained_service import IN_FLIGHT, ROOT, TASK, features, read_flags, share_the_machine
from clients.watched_service import MIB, MODEL, Watched, running
from printed import Parser, TableConsole
from rich.table import Table

OUTPUT = Path("outputs/benchmarks/service_soak.json")
# A connection carries one request at a time; the open loop must not wait for a free one.
OPEN_CONNECTIONS = 128
KEPT_UP = 0.98
SEARCH_STEPS = 4
PART, P99_OVER_P50, GROWTH = 0.7, 3.0, 0.02
REPEATS = 3
# Shares of the soak's time: start of the last 80 %, and length of the average at either end of it.
BEGIN, AVERAGED = 0.2, 0.1


def load(watched: Watched, codec: str, seconds: float, rate: float) -> dict[str, Any]:
    """Load the service from another process, at a fixed rate."""
    command = [sys.executable, str(ROOT / "benchmarks/clients/open_loop.py"), "--task", TASK]
    command += ["--port", str(watched.http_port), "--model", MODEL, "--codec", codec]
    command += ["--connections", str(OPEN_CONNECTIONS), "--seconds", str(seconds), "--rate", str(rate)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(answer)
    return result


def keeps_up(result: dict[str, Any], rate: float) -> bool:
    """Return whether all due requests were answered in time."""
    return result["refused"] == result["unanswered"] == 0 and result["replies_per_s"] >= KEPT_UP * rate


def highest_rate(watched: Watched, codec: str, seconds: float, rows: list[dict[str, Any]]) -> float:
    """Find the highest sustained rate by bisection."""
    url = f"http://127.0.0.1:{watched.http_port}/v1/generate/{TASK}?model={MODEL}"
    accept = f"application/x-safetensors; codec={codec}"
    body = features(1).tobytes()
    # The service learns the time of a batch from its first requests.
    closed_loop(url, body, accept, in_flight=IN_FLIGHT, seconds=2)
    closed = closed_loop(url, body, accept, in_flight=IN_FLIGHT, seconds=math.ceil(seconds))
    rows.append({"load": f"closed, {IN_FLIGHT} in flight", **asdict(closed)})
    low, high = 0.0, 1.1 * closed.replies_per_s
    rate = 0.9 * closed.replies_per_s
    for _ in range(SEARCH_STEPS):
        result = load(watched, codec, seconds, rate)
        good = keeps_up(result, rate)
        rows.append({"load": f"open, {rate:.0f}/s, {'kept up' if good else 'too much'}", **result})
        low, high = (rate, high) if good else (low, rate)
        # Bisection starts with the first rate that is sustained.
        rate = (low + high) / 2 if low else 0.85 * rate
    if not low:
        sys.exit(f"the service sustained no rate of {high:.0f}/s or more; is the machine busy?")
    return low


def soak(watched: Watched, codec: str, rate: float, num: int) -> dict[str, Any]:
    """Send `num` requests at a fixed rate; return their latency and the replica's memory over time."""
    # The load's warm-up, a fifth of the time, is served as well.
    seconds = num / rate / 1.2
    begin_s = time.perf_counter()
    result = load(watched, codec, seconds, rate)
    length_s = time.perf_counter() - begin_s
    series = [((at_s - begin_s) / length_s, size / MIB) for at_s, size in watched.rss if at_s >= begin_s]

    def mean(start: float) -> float:
        inside = [size for part, size in series if start <= part <= start + AVERAGED]
        # In a soak of a few seconds, some tenths have no sample of the replica's memory.
        return statistics.fmean(inside or [min(series, key=lambda each: abs(each[0] - start))[1]])

    early, late = mean(BEGIN), mean(1 - AVERAGED)
    return {
        **result,
        "requests": num,
        "rss_mib": [round(mean(each / 10), 1) for each in range(10)],
        "growth": late / early - 1,
        "growth_mib": late - early,
    }


def report(rows: list[dict[str, Any]], figures: dict[str, Any]) -> list[str]:
    """Print the table, write the JSON, and return the targets that were missed."""
    table = Table("load", "replies/s", "p50 ms", "p99 ms", "refused")
    for row in rows:
        values = (f"{row['replies_per_s']:,.0f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}")
        table.add_row(row["load"], *values, str(row["refused"]))
    console = TableConsole(width=110)
    console.print(table)
    soaked = figures["soak"]
    console.print(
        f"highest sustained rate: {figures['highest_rate']:,.0f}/s\n"
        f"at {PART:.0%} of it: p99 / p50 = {figures['p99_over_p50']:.2f} (target {P99_OVER_P50:g})\n"
        f"replica over {soaked['requests']:,} requests, MiB by tenths: {soaked['rss_mib']}\n"
        f"growth over the last 80 %: {soaked['growth_mib']:+.1f} MiB, {soaked['growth']:+.2%} "
        f"(target {GROWTH:.0%}); restarts: {figures['restarts']}; refused: {soaked['refused']}"
    )
    wanted = {
        f"{PART:.0%} of the highest sustained rate": figures["kept_up"],
        "p99 at most 3 times p50": figures["p99_over_p50"] <= P99_OVER_P50,
        "memory flat": soaked["growth"] < GROWTH,
        "no restart": figures["restarts"] == 0,
        "nothing refused": soaked["refused"] == soaked["unanswered"] == 0,
        "right heads afterwards": not figures["wrong"],
    }
    missed = [target for target, met in wanted.items() if not met]
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({**figures, "rows": rows, "missed": missed}, indent=2) + "\n")
    print(json.dumps({"benchmark": "service_soak", "file": str(OUTPUT), "missed": missed}))
    return missed


def main() -> None:
    """Find the highest rate, measure at a share of it, then soak at that share."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak")
    parser.add_argument("--codec", default="fp32")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load before the soak")
    args = parser.parse_args()
    require_wrk()
    read_flags()
    share_the_machine()
    rows: list[dict[str, Any]] = []
    with running(with_grpc=False) as watched:
        highest = highest_rate(watched, args.codec, args.seconds, rows)
        rate = PART * highest
        steady = [load(watched, args.codec, args.seconds, rate) for _ in range(REPEATS)]
        rows += [{"load": f"open, {PART:.0%}: {rate:.0f}/s", **each} for each in steady]
        soaked = soak(watched, args.codec, rate, args.requests)
        rows.append({"load": f"open, {PART:.0%}, {args.requests:,} requests", **soaked})
        figures = {
            "codec": args.codec,
            "highest_rate": highest,
            "p99_over_p50": statistics.median(each["p99_ms"] / each["p50_ms"] for each in steady),
            "soak": soaked,
            "kept_up": all(keeps_up(each, rate) for each in (*steady, soaked)),
            "wrong": watched.wrong_answers(),
            "restarts": len(watched.pids) - 1,
        }
        missed = report(rows, figures)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
