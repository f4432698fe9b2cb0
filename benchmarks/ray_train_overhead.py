"""Overhead of Ray Train over the same steps in a plain loop, start-up excluded.

Both train the same model on the same rendered clips with one worker and all cores, check it on the
validation split and save a checkpoint after each pass. Timed from the end of the first pass to the
end of the last, so starting processes and importing torch are left out. Runs alternate.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from printed import Parser, TableConsole
from rich.table import Table

from hyperfleet.cloud.assembly import assemble
from hyperfleet.cloud.checkpoint import save_checkpoint
from hyperfleet.cloud.training import TrainConfig
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.train_generator import TrainRunConfig, train
from pipelines.training_worker import keep_bundles

DATA = FleetQAConfig(num_seen_devices=100, num_held_out_devices=1)
PASSES = 4
ROUNDS = 2


@dataclass(frozen=True)
class Run:
    """Seconds of one round, without the first pass."""

    plain_s: float
    ray_s: float


def plain(config: TrainRunConfig) -> float:
    """Return the seconds of the plain loop."""
    assembled = assemble(config.train, config.data)
    trainer, files = assembled.trainer, assembled.files
    ends = []
    for result in trainer.run():
        keep_bundles(config.output, trainer, files, result)
        save_checkpoint(config.output / "checkpoint", trainer, result.position, files)
        ends.append(time.perf_counter())
    return ends[-1] - ends[0]


def with_ray(config: TrainRunConfig) -> float:
    """Return the seconds of Ray Train, from the timestamps of the metrics in MLflow."""
    result = train(config)
    client = MlflowClient(tracking_uri=config.tracking_uri)
    names = [name for name in client.get_run(result.run_id).data.metrics if name.endswith("loss_total")]
    ends = [point.timestamp for name in names for point in client.get_metric_history(result.run_id, name)]
    return (max(ends) - min(ends)) / 1000


def main() -> None:
    """Run, print the table and one line of JSON."""
    Parser(description=__doc__.splitlines()[0]).parse_args()
    console = TableConsole()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = render(DATA, root / "data", workers=0)
        schedule = TrainConfig(method="fine_tuning", warm_epochs=1, epochs=PASSES, batch_size=32)
        connect()
        for number in range(ROUNDS):
            shared = {"data": data, "train": schedule, "tracking_uri": f"sqlite:///{root}/mlflow.db"}
            plain_s = plain(TrainRunConfig(**shared, output=root / f"plain-{number}"))
            ray_s = with_ray(TrainRunConfig(**shared, output=root / f"ray-{number}"))
            runs.append(Run(plain_s=plain_s, ray_s=ray_s))
        disconnect()
    table = Table("round", "plain loop, s", "Ray Train, s", "ratio", title=f"{PASSES} passes of training")
    for number, run in enumerate(runs):
        table.add_row(str(number), f"{run.plain_s:.1f}", f"{run.ray_s:.1f}", f"{run.ray_s / run.plain_s:.3f}")
    console.print(table)
    ratio = statistics.median(run.ray_s / run.plain_s for run in runs)
    print(json.dumps({"benchmark": "ray_train_overhead", "median_ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
