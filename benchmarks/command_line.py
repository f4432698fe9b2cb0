"""Response time of the command line: help of every command, and refused arguments of some.

Each row is the median of processes started one after the other; a first one warms the disk cache.

    python benchmarks/command_line.py [--repeats 5]
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from printed import Parser, TableConsole
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "demo",
    "data",
    "data render",
    "data prepare",
    "data describe",
    "train",
    "fleet",
    "policies",
    "plan",
)
COMMANDS += ("tables", "codecs", "doctor")
REFUSED = (
    "fleet --policy nonsense",
    "fleet --devices 0",
    "fleet --scenario nonsense",
    "data render --scale nonsense",
    "train --train.method nonsense",
    "tables --tasks nonsense",
    "policies --codecs nonsense",
    "compare",
)
HELP_S, HELP_MB, REFUSED_S = 0.7, 120, 1.0


def run(arguments: str) -> tuple[float, float, float]:
    """Run the command line once; return wall seconds, CPU seconds and the largest resident MB."""
    paths = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *arguments.split()],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Run every command and print the table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    table = Table("hyperfleet ...", "wall s", "CPU s", "MB", "aim", title="Answers of the command line")
    lines = [("--help", f"{HELP_S} s, {HELP_MB} MB")]
    lines += [(f"{command} --help", f"{HELP_S} s, {HELP_MB} MB") for command in COMMANDS]
    lines += [(refused, f"{REFUSED_S} s") for refused in REFUSED]
    for arguments, aim in lines:
        run(arguments)
        runs = [run(arguments) for _ in range(args.repeats)]
        wall_s, cpu_s, resident_mb = (statistics.median(values) for values in zip(*runs, strict=True))
        table.add_row(arguments, f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{resident_mb:.0f}", aim)
    TableConsole(width=110).print(table)


if __name__ == "__main__":
    main()
