"""Score a fleet run, print its tables, write its report and record both in MLflow."""

import importlib.metadata
import platform
import sys
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from hyperfleet.bundle import load_device_model, load_generator
from hyperfleet.datasets import Corpus, example_frames
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.attribution import against_own_head, attribution_table
from hyperfleet.evaluation.facts import RunFacts, StepFact
from hyperfleet.evaluation.metrics import AnswerKey, FleetScore, Roster, score
from hyperfleet.evaluation.rendering import to_rich
from hyperfleet.evaluation.report import write_report
from hyperfleet.evaluation.tables import demo_tables, steps_table
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri, prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run
from pipelines.emulate_fleet import FleetResult

REPORT_FILE = "report.html"
VERSIONS_OF = ("hyperfleet", "torch", "timm", "transformers", "ray", "mlflow", "pyarrow", "av")


def show_fleet(
    result: FleetResult,
    *,
    console: Console,
    tracking_uri: str | None = None,
    steps: tuple[StepFact, ...] = (),
) -> Path:
    """Print what the run brought and return the path of its report."""
    fleet_score, attribution = score_fleet(result)
    uri = absolute_uri(tracking_uri) if tracking_uri else default_tracking_uri()
    tracker = open_run(prepare_store(uri), tracking_uri=uri, run_name="fleet", tags={"kind": "fleet"})
    facts = _facts(result, tracker.run_id, uri, steps)
    tables = [*demo_tables(fleet_score, facts), attribution_table(attribution)]
    for table in tables:
        console.print(to_rich(table))
    if facts.steps:
        console.print(to_rich(steps_table(facts)))
    console.print(wording.headline(fleet_score))
    folder = result.events.parent
    frames = example_frames(result.data)
    report = write_report(folder / REPORT_FILE, fleet_score, facts, tables, frames)
    facts.save(folder / "facts.json")
    tracker.log_params(
        {"model": result.model.uri, "static_model": result.static_model.uri, "seed": facts.seed}
    )
    gain = {"accuracy/all/gain_from_generation": attribution.overall.device_mean.difference}
    tracker.log_metrics({**fleet_score.as_metrics(), **gain, "requests_per_s": result.requests_per_s}, step=0)
    tracker.log_artifacts(folder, "fleet")
    tracker.finish()
    return report


def score_fleet(result: FleetResult) -> tuple[FleetScore, FleetScore]:
    """Join the reports of the devices with the right answers, which no device has seen.

    Returns:
        Fine-tuning against the personalized head; and the static head that the personalized model
        has itself against the generated one, which tells what generation alone is worth.
    """
    corpus = Corpus.open(result.data)
    live = corpus.split("test", result.bundle.encoder.text_length)
    events = pq.read_table(result.events)
    took_part = set(events["device_id"].to_pylist())
    chosen = [i for i, device in enumerate(corpus.device_map.device_id) if int(device) in took_part]
    roster = Roster(
        device_id=corpus.device_map.device_id[chosen],
        seen=corpus.device_map.seen[chosen],
    )
    skipped = dict.fromkeys(result.empty_devices, "empty stream")
    key = AnswerKey(example_id=live.example_id, label=live.label)
    return (
        score(events, key, roster, skipped=skipped),
        score(against_own_head(events), key, roster, skipped=skipped),
    )


def _facts(result: FleetResult, run_id: str, uri: str, steps: tuple[StepFact, ...]) -> RunFacts:
    device, generator = load_device_model(result.model.local_dir), load_generator(result.model.local_dir)
    front = [part for part in (generator.adr, generator.f_p) if part is not None]
    notes = [f"{result.host_deaths} device hosts died and were replaced."] if result.host_deaths else []
    if result.num_skipped:
        notes.append(f"{result.num_skipped} live questions were left out because their video is broken.")
    return RunFacts(
        method={"cdc_mmpg": "CDC-MMPG", "stable_synth_net": "StableSynthNet"}.get(
            result.bundle.method, result.bundle.method
        ),
        data_set=str(result.data),
        seed=result.bundle.seed,
        model_name=result.model.name,
        model_version=result.model.version,
        mlflow_run_id=run_id,
        mlflow_url=uri,
        encoder_preset=result.bundle.encoder.name,
        weights_origin=result.bundle.weights_origin,
        num_classes=result.bundle.num_classes,
        device_params=sum(p.numel() for p in device.parameters()),
        cloud_params=sum(p.numel() for p in generator.parameters()),
        front_params=sum(p.numel() for part in front for p in part.parameters()),
        head_bytes=generator.layout.num_bytes,
        fleet_wall_s=result.wall_s,
        num_hosts=result.num_hosts,
        steps=steps,
        commands=(" ".join(["hyperfleet", *sys.argv[1:]]),),
        versions=(
            ("Python", platform.python_version()),
            *((name, importlib.metadata.version(name)) for name in VERSIONS_OF),
        ),
        notes=tuple(notes),
        link_note=(
            "Uplink and downlink are computed from the bytes sent and the network's rate, not slept; "
            "queueing, generation and application are measured under the load of the fleet."
        ),
    )
