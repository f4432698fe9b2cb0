"""Cost of spreading a fleet over nodes: samples per CPU-second on one host and on two hosts of two nodes.

Both Ray nodes are on this machine, so the same cores do the work either way. The loop is that of full_loop.py
with a fresh rank-4 head per sample; CPU is that of all processes, Ray's included. Both ways take turns, round
after round; ratios are within a round, and 1 means that spreading costs nothing.

    python benchmarks/fleet_spread.py [--rounds 3] [--samples 8000]
"""

import json
import os
import statistics
from dataclasses import asdict
from functools import partial
from pathlib import Path

import ray
from full_loop import Loop, Sample, scenario_of, table_of, timed
from printed import Parser, TableConsole
from ray.cluster_utils import Cluster
from rich.table import Table

from pipelines.runtime import connect, disconnect

OUTPUT = Path("outputs/benchmarks/fleet_spread.json")


def main() -> None:
    """Run and print."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8000)
    args = parser.parse_args()
    table, scenario = table_of(args.samples), scenario_of(args.samples, 1)
    roles = {"device_host": 2}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "resources": roles}
    )
    cluster.add_node(num_cpus=1, resources=roles)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    connect()
    rounds: dict[int, list[Sample]] = {1: [], 2: []}
    try:
        one, two = Loop("rank4", table, 1), Loop("rank4", table, 2)
        with one.pool, two.pool:
            nodes = set(two.pool.host_nodes)
            for _ in range(args.rounds + 1):
                for number, loop in ((1, one), (2, two)):
                    rounds[number].append(timed(partial(loop.run, scenario)))
    finally:
        disconnect()
        ray.shutdown()
        cluster.shutdown()
    show(rounds, len(nodes))


def show(rounds: dict[int, list[Sample]], num_nodes: int) -> None:
    """Print medians over all rounds but the first, and write all values as JSON."""
    console = TableConsole(width=120)
    table = Table(
        "hosts", "samples/s", "CPU-ms per sample", title=f"A fleet on one host and on {num_nodes} nodes"
    )
    for number, samples in rounds.items():
        rate = statistics.median(each.answers_per_s for each in samples[1:])
        table.add_row(
            str(number), f"{rate:,.0f}", f"{statistics.median(each.cpu_ms for each in samples[1:]):.3f}"
        )
    console.print(table)
    ratios = [one.cpu_ms / two.cpu_ms for one, two in zip(rounds[1][1:], rounds[2][1:], strict=True)]
    said = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    console.print(f"two hosts: {statistics.median(ratios):.2f} of one host's samples per CPU-second ({said})")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    content = {str(number): [asdict(each) for each in samples] for number, samples in rounds.items()}
    OUTPUT.write_text(json.dumps({"rounds": content, "nodes": num_nodes, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
