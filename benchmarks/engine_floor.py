"""Cost of the engine per idle device: ours, Flower's and pfl's in the same run.

A device receives 192 floats and writes a head of 145,597 (568.7 KiB); the heads of a round are summed and the
driver checks the sum. Two rows move every head from its device's process to the driver, which sums them:
Flower's and "ours, heads moved". The others move none: pfl sums in its single process, and in "ours, summed
by the hosts" each host sums its shards and sends one sum per shard. Our scenarios move none either: heads are
made and applied in the same host.

CPU is that of all processes of an engine. The engines take turns, round after round; ratios compare runs of
the same round. Flower and pfl have an environment of their own, .benchmarks-env/peers, which the first run
creates (0.7 GB).

    python benchmarks/engine_floor.py [--repeats 3] [--seconds 5] [--devices 500 2000]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from printed import Parser, TableConsole
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
ENVIRONMENT = ROOT / ".benchmarks-env" / "peers"
OUTPUT = Path("outputs/benchmarks/engine_floor.json")
# Flower installs the Ray version it needs.
REQUIREMENTS = {"flwr[simulation]": "1.41.0", "pfl": "0.6.0", "psutil": "7.2.2"}
REPORTED = ("flwr", "pfl", "ray", "numpy", "psutil")
FIELDS = ("cpu_ms_per_device", "devices_per_cpu_s", "devices_per_wall_s", "memory_mib")
FLOWER = "Flower, heads moved"
PFL = "pfl, 1 process"
PFL_UNSAMPLED = "pfl, unsampled users"
OURS = "ours, heads moved"
OURS_SUMMED = "ours, summed by the hosts"
# Longer than any round; Flower has its own limit.
BLOCK_TIMEOUT_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Command of an engine: Python interpreter, script in `peers` and arguments."""

    python: Path
    script: str
    switches: tuple[str, ...] = ()


ENGINES = {
    FLOWER: Engine(python=ENVIRONMENT / "bin" / "python", script="flower_round.py"),
    PFL: Engine(python=ENVIRONMENT / "bin" / "python", script="pfl_round.py"),
    PFL_UNSAMPLED: Engine(
        python=ENVIRONMENT / "bin" / "python", script="pfl_round.py", switches=("--no-sampling",)
    ),
    OURS: Engine(python=Path(sys.executable), script="hyperfleet_round.py"),
    OURS_SUMMED: Engine(python=Path(sys.executable), script="hyperfleet_round.py", switches=("--summed",)),
}


def installed_versions() -> dict[str, str]:
    """Return the versions of the relevant packages in the peers' environment; empty if there is none."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        return {}
    code = (
        "import json, sys; from importlib.metadata import distributions as all; "
        "print(json.dumps({d.name: d.version for d in all() if d.name in sys.argv[1:]}))"
    )
    shown = subprocess.run([python, "-c", code, *REPORTED], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(shown.stdout)
    return versions


def prepare_environment(console: Console) -> dict[str, str]:
    """Create the peers' environment if it is missing, and return its versions."""
    wanted = {name.split("[")[0]: version for name, version in REQUIREMENTS.items()}
    versions = installed_versions()
    if wanted.items() <= versions.items():
        return versions
    console.print(f"Installing Flower and pfl into {ENVIRONMENT} ...")
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    packages = [f"{name}=={version}" for name, version in REQUIREMENTS.items()]
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True)
    return installed_versions()


def run_block(engine: Engine, num_devices: int, seconds: float) -> dict[str, float]:
    """Start an engine, run its rounds and return its figures."""
    # Every engine starts its own Ray, whose processes are all its children; none sends usage statistics.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
    command = [engine.python, PEERS / engine.script, "--devices", str(num_devices)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), *engine.switches],
        capture_output=True,
        text=True,
        env=environment,
        timeout=BLOCK_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"{engine.script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    figures["devices_per_cpu_s"] = 1e3 / figures["cpu_ms_per_device"]
    return figures


def cheaper_than(peer: str, name: str, blocks: dict[str, list[dict[str, float]]]) -> float:
    """Return a peer's CPU per device divided by an engine's, median over the repeats."""
    pairs = zip(blocks[peer], blocks[name], strict=True)
    return statistics.median(theirs["cpu_ms_per_device"] / own["cpu_ms_per_device"] for theirs, own in pairs)


def summarise(samples: dict[int, dict[str, list[dict[str, float]]]]) -> list[dict[str, object]]:
    """Return one row per engine and size: medians and ratios."""
    rows: list[dict[str, object]] = []
    for num_devices, blocks in samples.items():
        for name, own in blocks.items():
            medians = {field: statistics.median(each[field] for each in own) for field in FIELDS}
            ratios = {
                "cheaper_than_flower": cheaper_than(FLOWER, name, blocks),
                "cheaper_than_pfl": cheaper_than(PFL, name, blocks),
            }
            figures = {key: round(value, 4) for key, value in {**medians, **ratios}.items()}
            rows.append({"engine": name, "num_devices": num_devices, **figures})
    return rows


def show(rows: list[dict[str, object]], console: Console) -> None:
    """Print the table."""
    table = Table("devices", "engine", "CPU-ms per device", "devices / CPU-s", "Flower / own", "pfl / own")
    table.add_column("devices / s")
    table.add_column("PSS MiB")
    table.columns[1].no_wrap = True
    for row in rows:
        table.add_row(
            f"{row['num_devices']:,}",
            str(row["engine"]),
            f"{row['cpu_ms_per_device']:.3f}",
            f"{row['devices_per_cpu_s']:,.0f}",
            f"{row['cheaper_than_flower']:.1f}",
            f"{row['cheaper_than_pfl']:.2f}",
            f"{row['devices_per_wall_s']:,.0f}",
            f"{row['memory_mib']:,.0f}",
        )
    console.print(table)


def main() -> None:
    """Run every engine in every repeat."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each block; at least one round")
    parser.add_argument("--devices", type=int, nargs="+", default=[500, 2000], help="per round")
    args = parser.parse_args()
    console = TableConsole(width=110)
    versions = prepare_environment(console)
    samples: dict[int, dict[str, list[dict[str, float]]]] = {
        num_devices: {name: [] for name in ENGINES} for num_devices in args.devices
    }
    for repeat in range(args.repeats):
        for num_devices, blocks in samples.items():
            for name, engine in ENGINES.items():
                console.print(f"repeat {repeat + 1} of {args.repeats}: {num_devices} devices, {name}")
                blocks[name].append(run_block(engine, num_devices, args.seconds))
    rows = summarise(samples)
    show(rows, console)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    figures = {"versions": versions, "rows": rows, "samples": samples}
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({"benchmark": "engine_floor", "file": str(OUTPUT)}))


if __name__ == "__main__":
    main()
