"""The planner's queue model beside measurements, from an idle service to one near saturation.

A fleet in real time asks a service that makes one head at a time in about 10 ms: slow enough that the process
that plays the devices hardly uses the shared cores. The model is the newest personalized one with a wider,
untrained emitter; its heads are useless. Before each run the queue model is fitted to bursts, as `hyperfleet
fleet --clock real` and `hyperfleet plan` do; then it predicts the run's own arrivals. It still assumes that
all heads of a batch are ready when the batch is, so its median is too high for this service.

Needs models and data, e.g. those of `hyperfleet demo --scale smoke`.

    python benchmarks/queue_model.py [--data data/smoke] [--devices 4000 7000 8500 9500] [--duration-s 40]
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from clients.untrained_service import keep_memory, read_flags, share_the_machine
from printed import Parser, TableConsole
from rich.table import Table

OUTPUT = Path("outputs/benchmarks/queue_model.json")
# 10 ms per head of a few hundred answers on a core without AVX-512.
EMITTER_HIDDEN = 8192
NETWORKS = ("nr_urban",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One run; latencies are those in the cloud (queue and generator), in milliseconds."""

    num_devices: int
    heads_per_s: float
    part_of_most: float
    predicted_p50_ms: float
    measured_p50_ms: float
    predicted_p99_ms: float
    measured_p99_ms: float
    max_lag_ms: float


def write_slow_model(model: str, folder: Path) -> Path:
    """Write the personalized model with a slower generator and return its folder."""
    from hyperfleet import bundle
    from hyperfleet.tracking.registry import resolve_bundle

    source = resolve_bundle(model, None).local_dir
    config, trained = bundle.load_model(source)
    assert config.generator is not None
    slow_generator = replace(config.generator, emitter_hidden=EMITTER_HIDDEN)
    slow_config = replace(config, generator=slow_generator)
    torch.manual_seed(0)
    slow = bundle.build_model(slow_config)
    weights = slow.state_dict()
    same = {
        name: value
        for name, value in trained.state_dict().items()
        if name in weights and weights[name].shape == value.shape
    }
    slow.load_state_dict(weights | same)
    files = {"tokenizer_file": source / bundle.TOKENIZER_FILE, "answers_file": source / bundle.ANSWERS_FILE}
    return bundle.save_bundle(folder / "slow", slow_config, slow, **files)


def run(num_devices: int, duration_s: float, data: Path, model: Path, url: str, folder: Path) -> Row:
    """Run a fleet in real time and compare the queue model with it."""
    from hyperfleet.planning.bursts import Bursts
    from hyperfleet.planning.capacity import predict
    from hyperfleet.planning.cloud_fit import Latencies, check_prediction, fit_cloud
    from hyperfleet.scenario.named import scenario
    from pipelines.emulate_fleet import FleetConfig, run_fleet

    chosen = replace(
        scenario("paper_networks"),
        active_devices=num_devices,
        registered_devices=num_devices,
        duration_s=duration_s,
        networks=NETWORKS,
    )
    config = FleetConfig(
        scenario=chosen,
        clock="real",
        data=data,
        model=str(model),
        generator_url=url,
        output=folder / f"devices-{num_devices}",
    )
    result = run_fleet(config)
    assert result.real is not None
    measured = Latencies.of(result.log.answers())
    bursts = Bursts.load(result.log.folder)
    fitted = fit_cloud(bursts.num_heads, bursts.seconds, chosen.cloud).model
    predicted = predict(replace(chosen, cloud=fitted), result.plan, result.work, anchor=result.anchor)
    check = check_prediction(predicted, measured)
    heads_per_s = len(measured.cloud_s) / duration_s
    return Row(
        num_devices=num_devices,
        heads_per_s=heads_per_s,
        part_of_most=heads_per_s / fitted.max_heads_per_s,
        predicted_p50_ms=1e3 * check.cloud_p50.predicted_s,
        measured_p50_ms=1e3 * check.cloud_p50.measured_s,
        predicted_p99_ms=1e3 * check.cloud_p99.predicted_s,
        measured_p99_ms=1e3 * check.cloud_p99.measured_s,
        max_lag_ms=1e3 * result.real.max_lag_s,
    )


def show(rows: list[Row]) -> None:
    """Print the table and write the JSON."""
    table = Table(title="In the cloud, predicted / measured")
    for column in ("devices", "heads/s", "of the fitted most", "p50, ms", "p99, ms", "behind the clock, ms"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row.num_devices:,}",
            f"{row.heads_per_s:.0f}",
            f"{row.part_of_most:.0%}",
            f"{row.predicted_p50_ms:.1f} / {row.measured_p50_ms:.1f}",
            f"{row.predicted_p99_ms:.0f} / {row.measured_p99_ms:.0f}",
            f"{row.max_lag_ms:.0f}",
        )
    TableConsole(width=110).print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(json.dumps({"benchmark": "queue_model", "file": str(OUTPUT)}))


def main() -> None:
    """Serve the slow model and run every fleet."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/smoke"))
    parser.add_argument("--devices", type=int, nargs="+", default=[4000, 7000, 8500, 9500])
    parser.add_argument("--duration-s", type=float, default=40.0)
    args = parser.parse_args()
    read_flags()
    share_the_machine()
    keep_memory()

    import serve_apps
    from hyperfleet.tracking.model_names import NEWEST
    from pipelines.runtime import connect, disconnect

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = write_slow_model(NEWEST, folder)
        try:
            connect(num_cpus=4)
            limits = {"max_batch_size": 1, "max_features": 1}
            url = serve_apps.start(serve_apps.GeneratorArgs(model=str(model), **limits), port=0)
            for each in args.devices:
                rows.append(run(each, args.duration_s, args.data, model, url, folder))
        finally:
            # Also after a failure, with the rows before it.
            show(rows)
            disconnect()


if __name__ == "__main__":
    main()
