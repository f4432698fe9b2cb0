"""Score a fleet run, print its tables, write its report and record both in MLflow."""

import importlib.metadata
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from hyperfleet.datasets import Corpus
from hyperfleet.datasets.example_frames import example_frames
from hyperfleet.emulation.run_log import SCENARIO_FILE
from hyperfleet.evaluation.answer_key import AnswerKey
from hyperfleet.evaluation.fleet_score import FleetScore, score_fleet
from hyperfleet.evaluation.rendering import to_rich, wide_console
from hyperfleet.evaluation.report import headline, write_report
from hyperfleet.evaluation.tables import StepFact, fleet_tables
from hyperfleet.planning.bursts import Bursts
from hyperfleet.planning.capacity import predict
from hyperfleet.planning.cloud_fit import (
    CloudFit,
    Latencies,
    PredictionCheck,
    QuantileCheck,
    check_prediction,
    fit_cloud,
)
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri, prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run
from pipelines.emulate_fleet import FleetResult

REPORT_FILE = "report.html"
VERSIONS_OF = ("hyperfleet", "torch", "timm", "transformers", "ray", "mlflow", "pyarrow", "av")
# A busy process lags by a few milliseconds, which is small compared with the time of a request.
TOLERATED_LAG_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShownFleet:
    """The report of a run, its score, and the MLflow run that holds both."""

    report: Path
    score: FleetScore
    run_id: str


def score_run(result: FleetResult) -> FleetScore:
    """Compare the devices' answers with the right ones, which no device has seen."""
    corpus = Corpus.open(result.data)
    live = corpus.split("test", result.models.bundle.encoder.text_length)
    devices = corpus.device_map
    key = AnswerKey(
        example_id=live.example_id,
        label=live.label,
        device_id=live.device_id,
        held_out=np.isin(live.device_id, devices.device_id[~devices.seen]),
    )
    return score_fleet(result.log.events(), result.log.answers(), key)


def show_fleet(
    result: FleetResult,
    *,
    console: Console,
    tracking_uri: str | None = None,
    steps: tuple[StepFact, ...] = (),
) -> ShownFleet:
    """Print the results of a run, write its report and record it."""
    scenario = result.log.scenario
    score = score_run(result)
    uri = absolute_uri(tracking_uri) if tracking_uri else default_tracking_uri()
    tags = {"kind": "scenario", "scenario": scenario.name, "clock": result.log.origin["clock"]}
    tracker = open_run(prepare_store(uri), tracking_uri=uri, run_name=f"scenario {scenario.name}", tags=tags)
    wide = wide_console(console)
    tables = fleet_tables(score, result.deaths, steps)
    for table in tables:
        wide.print(to_rich(table))
    console.print(headline(score))
    facts = _provenance(result, tracker.run_id)
    if result.real is not None:
        facts += _prediction(result, console)
    folder = result.log.folder
    report = write_report(
        folder / REPORT_FILE,
        score,
        scenario,
        tables,
        example_frames=example_frames(result.data),
        provenance=facts,
    )
    tracker.log_params(
        {
            "model": result.models.personal.uri,
            "static_model": result.models.static.uri,
            "seed": scenario.seed,
            "active_devices": scenario.active_devices,
            "duration_s": scenario.duration_s,
            "policy": scenario.policy.kind,
            "codec": scenario.codec,
        }
    )
    tracker.log_metrics({**score.as_metrics(), "wall_s": result.wall_s}, step=0)
    for step, metrics in score.metrics_over_time():
        tracker.log_metrics(metrics, step=step)
    tracker.log_artifacts(folder, "scenario")
    tracker.finish()
    return ShownFleet(report=report, score=score, run_id=tracker.run_id)


def _provenance(result: FleetResult, run_id: str) -> list[tuple[str, str]]:
    return [
        ("command", " ".join(["hyperfleet", *sys.argv[1:]])),
        ("clock", result.log.origin["clock"]),
        *result.facts,
        ("log", f"{result.log.folder} ({SCENARIO_FILE}, events/, answers/)"),
        ("hosts", str(result.num_hosts)),
        ("wall time", f"{result.wall_s:.1f} s, {result.features_s:.1f} s of encoding before"),
        ("MLflow run", run_id),
        ("Python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in VERSIONS_OF),
    ]


def _prediction(result: FleetResult, console: Console) -> list[tuple[str, str]]:
    """Compare the queue model's prediction with the measured run."""
    assert result.real is not None
    facts = [("longest lag behind the clock", f"{1000 * result.real.max_lag_s:.1f} ms")]
    measured = Latencies.of(result.log.answers())
    if not len(measured.cloud_s):
        return facts
    scenario = result.log.scenario
    bursts = Bursts.load(result.log.folder)
    fit = fit_cloud(bursts.num_heads, bursts.seconds, scenario.cloud)
    predicted = predict(replace(scenario, cloud=fit.model), result.plan, result.work, anchor=result.anchor)
    texts = [fit_sentence(fit), prediction_sentence(check_prediction(predicted, measured))]
    if result.real.max_lag_s > TOLERATED_LAG_S:
        texts.append(lag_sentence(result.real.max_lag_s))
    for text in texts:
        console.print(text)
    return [*facts, ("queue model", " ".join(texts))]


def fit_sentence(fit: CloudFit) -> str:
    """Return a sentence about the fitted queue model."""
    return (
        f"A burst of n heads takes {1000 * fit.model.batch_s:.2f} + {1000 * fit.model.head_s:.3f} n ms, "
        f"fitted to {fit.num_batches:,} bursts before the run; residual {100 * fit.relative_error:.0f} %."
    )


def lag_sentence(max_lag_s: float) -> str:
    """Return a warning about a run in real time that did not keep up with its clock."""
    return (
        f"The processes that play the devices were up to {1000 * max_lag_s:.0f} ms behind their clock, so "
        "the load was not that of the scenario and the measured times are not the generator's alone; run the "
        "service on another machine, or fewer devices."
    )


def prediction_sentence(check: PredictionCheck) -> str:
    """Return a sentence that compares prediction and measurement for the same arrivals."""

    def milliseconds(quantile: QuantileCheck) -> str:
        return f"{1000 * quantile.predicted_s:.1f} predicted, {1000 * quantile.measured_s:.1f} ms measured"

    return (
        f"Queue model and this run, time in the cloud: p50 {milliseconds(check.cloud_p50)}; "
        f"p99 {milliseconds(check.cloud_p99)}; samples that fell back {check.predicted_fallbacks:,} "
        f"predicted, {check.measured_fallbacks:,} measured."
    )
