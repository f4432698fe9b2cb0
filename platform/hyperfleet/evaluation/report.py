"""The report of a run: one HTML file that needs nothing but a browser.

Styles, plots and frames are inside the file; it has no script and asks no server for anything.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import figures, wording
from hyperfleet.evaluation.facts import RunFacts
from hyperfleet.evaluation.latency import TOTAL
from hyperfleet.evaluation.metrics import FleetScore
from hyperfleet.evaluation.rendering import ENVIRONMENT, Table, to_html
from hyperfleet.evaluation.tables import steps_table

MAX_FRAMES_A_FAMILY = 6
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyNumber:
    """A number that stands at the top of the page."""

    value: str
    label: str


def write_report(
    path: Path,
    score: FleetScore,
    facts: RunFacts,
    tables: Sequence[Table],
    example_frames: Mapping[str, Sequence[np.ndarray]],
) -> Path:
    """Write the report of a run and return where it is.

    Args:
        path: the file to write; its folder is made if need be.
        score: what the fleet run brought.
        facts: what the run was.
        tables: the tables to show, those of `demo_tables` and any others.
        example_frames: frames (height, width, 3) uint8 by camera family; at most
            `MAX_FRAMES_A_FAMILY` of each are shown.

    Raises:
        ConfigError: a frame of another shape or type.
    """
    page = ENVIRONMENT.get_template("report.html.j2").render(
        facts=facts,
        score=score,
        outcome=wording.outcome(score.overall.device_mean),
        headline=wording.headline(score),
        sentences=[text for text in (wording.held_out_sentence(score), wording.cost_sentence(score)) if text],
        key_numbers=_key_numbers(score, facts),
        tables=[to_html(table) for table in tables],
        steps=to_html(steps_table(facts)) if facts.steps else "",
        plots=_plots(score, facts),
        frames={
            family: [_data_uri(frame) for frame in frames[:MAX_FRAMES_A_FAMILY]]
            for family, frames in example_frames.items()
            if len(frames)
        },
        provenance=_provenance(score, facts),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _plots(score: FleetScore, facts: RunFacts) -> list[tuple[str, str]]:
    plots = [
        (
            figures.accuracy_by_device(score),
            "Accuracy over the devices, worst first; each curve is sorted on its own.",
        ),
        (
            figures.accuracy_difference(score),
            "Personalized minus static accuracy of each device; right of zero the former is better.",
        ),
        (
            figures.network_delay(score, facts),
            "Time to download one head. Crosses: StableSynthNet Table 5 as printed; bars: size over rate.",
        ),
    ]
    if score.latency:
        plots.insert(
            2,
            (
                figures.latency_split(score),
                "Where the time of a personalization goes: mean of each part. Line: p50 of the total; "
                "diamond: p99.",
            ),
        )
    return plots


def _key_numbers(score: FleetScore, facts: RunFacts) -> list[KeyNumber]:
    group = score.overall
    static, personalized = group.static.device_mean, group.personalized.device_mean
    numbers = [
        KeyNumber(value=wording.percent(static), label="static head, mean over devices"),
        KeyNumber(value=wording.percent(personalized), label="personalized head, mean over devices"),
        KeyNumber(value=wording.points(group.device_mean.difference), label="points between them"),
    ]
    if score.held_out is not None:
        gain = wording.points(score.held_out.device_mean.difference)
        numbers.append(KeyNumber(value=gain, label="points on held-out devices"))
    if score.latency:
        p50_s = score.latency[0].parts[TOTAL].p50_s
        took = f"{wording.milliseconds(p50_s)} ms"
        numbers.append(KeyNumber(value=took, label="to a personalized head, median"))
    size = f"{wording.kib(facts.feature_bytes)} / {wording.kib(facts.head_bytes)}"
    numbers.append(KeyNumber(value=size, label="KiB up / down a head"))
    return numbers


def _provenance(score: FleetScore, facts: RunFacts) -> list[tuple[str, str]]:
    return [
        ("Method", facts.method),
        ("Data", facts.data_set),
        ("Seed", str(facts.seed)),
        ("Model", f"{facts.model_name}, version {facts.model_version}"),
        ("Versions that answered", ", ".join(score.model_versions)),
        ("Encoder", f"{facts.encoder_preset}; weights: {facts.weights_origin}"),
        ("Fleet", f"{wording.devices(score.overall.num_devices)} on {facts.num_hosts} hosts, "
                  f"{wording.duration(facts.fleet_wall_s)}"),
        ("Skipped devices", f"{len(score.skipped):,}"),
        ("MLflow run", facts.mlflow_run_id),
        ("MLflow store", facts.mlflow_url),
        *((f"{name} version", version) for name, version in facts.versions),
    ]  # fmt: skip


def _data_uri(frame: np.ndarray) -> str:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            f"an example frame must be uint8 (height, width, 3), got {frame.dtype} {frame.shape}; "
            "pass decoded frames, before normalisation"
        )
    _, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
