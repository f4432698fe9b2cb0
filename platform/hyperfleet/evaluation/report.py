"""The report of a fleet run: one HTML page that needs nothing but a browser."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import WINDOW
from hyperfleet.evaluation.figures import fleet_plots
from hyperfleet.evaluation.fleet_score import (
    HELD_OUT,
    STATIC_HEAD,
    STATIC_MODEL,
    Comparison,
    FleetScore,
    total_latency,
)
from hyperfleet.evaluation.rendering import KeyNumber, Table, write_page
from hyperfleet.scenario.definition import Scenario

NOTES = (
    "A sample is answered with the best head the device has: a fresh head made for it, the last one received "
    "(cached), or the personal model's own static head. The static model is another model, trained without "
    "generated heads (Fine-tuning); it answers the same samples.",
    "Labels of live samples are used for scoring alone. The 10th percentile shows the worst-served devices: "
    "one in ten is below it.",
    "Seen devices gave clips to training; held-out devices gave none. A gain on seen devices alone is "
    "memory, not personalization.",
    "A difference is significant if its 95% interval excludes zero and p is below 0.05. One run is one seed: "
    "the interval does not cover the spread between seeds.",
    "A fallback is a sample for which the device asked for a head and got none in time. A cached or static "
    "head that the request policy chose is not a fallback.",
    "Emulated devices share and repeat the material of the data set's devices, so only the data set's "
    "devices are independent units. More emulated devices make no difference more certain.",
    "Times are emulated: links and device chips are models with the parameters of the scenario.",
    f"Recovery is measured in windows of {WINDOW} samples in the order of arrival. A window is as before if "
    "its p99 and its fallbacks are no worse than in the worst window before the fault.",
)
MAX_FRAMES_PER_FAMILY = 6
_JPEG_QUALITY = 90


def write_report(
    path: Path,
    score: FleetScore,
    scenario: Scenario,
    tables: Sequence[Table],
    *,
    example_frames: Mapping[str, Sequence[np.ndarray]] | None = None,
    provenance: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the report of a run and return its path.

    Args:
        path: output file; its folder is created if missing.
        score: score of the run.
        scenario: the scenario that was run.
        tables: tables of `fleet_tables`.
        example_frames: frames (height, width, 3) uint8 by camera family; at most `MAX_FRAMES_PER_FAMILY` of
            each are shown.
        provenance: names and values that identify the run: model, data, commands, versions.

    Raises:
        ConfigError: a frame has another shape or type.
    """
    frames = {
        family: [_data_uri(frame) for frame in frames[:MAX_FRAMES_PER_FAMILY]]
        for family, frames in (example_frames or {}).items()
        if len(frames)
    }
    sentences = (
        scenario.description,
        held_out_sentence(score),
        cost_sentence(score),
        fault_sentence(score),
    )
    return write_page(
        path,
        title=f"scenario {scenario.name}, seed {scenario.seed}",
        kind=f"scenario {scenario.name}",
        outcome=wording.outcome(score.against_static_model),
        headline=headline(score),
        sentences=[text for text in sentences if text],
        key_numbers=_key_numbers(score),
        tables=tables,
        plots=fleet_plots(score),
        frames=frames,
        notes=NOTES,
        provenance=[*_setting(scenario), *provenance],
    )


def headline(score: FleetScore) -> str:
    """Return one sentence with the result against the static model, whichever it favours."""
    test = score.against_static_model
    opening = {
        "win": "The fleet answered better than the static model",
        "lose": "The fleet answered worse than the static model",
        "tie": "No significant difference between the fleet's answers and the static model",
    }[wording.outcome(test)]
    if test.interval is None:
        opening = "Too few devices in the data set for a test of the fleet against the static model"
    numbers = (
        f"{wording.percent(score.answers.sample)} against {wording.percent(score.static_model.sample)} of "
        f"{score.num_samples:,} samples right"
    )
    if test.interval is not None:
        numbers += (
            f" ({wording.points(test.difference)} points in the mean of the data set's devices, 95% interval "
            f"{wording.interval_points(test.interval)}, {wording.tested(test)})"
        )
    return f"{opening}: {numbers}."


def held_out_sentence(score: FleetScore) -> str:
    """Return the result on devices that training never saw; empty if there were none."""
    found = score.against(STATIC_MODEL, HELD_OUT)
    if found is None:
        return ""
    outcome = wording.outcome(found.test)
    verdict = {
        "win": "the gain holds there",
        "lose": "the fleet did worse there",
        "tie": "the difference is not significant there",
    }[outcome]
    if outcome == "win" and wording.outcome(score.against_static_model) != "win":
        verdict = "the fleet did better there"
    return f"Devices that training never saw: {_comparison(found)}; {verdict}."


def cost_sentence(score: FleetScore) -> str:
    """Return the cost of a sample in time, bytes and joules, and the shares of the heads."""
    p50_s, p99_s = total_latency(score)
    spent = score.spending
    heads = ", ".join(
        f"{wording.percent(score.share(name))} by a {name} head" for name in score.heads if score.heads[name]
    )
    return (
        f"Samples were answered {heads}, {wording.milliseconds(p50_s)} ms after they arrived at the median "
        f"and {wording.milliseconds(p99_s)} ms at the 99th percentile, for "
        f"{wording.kib(spent.bytes_per_sample)} KiB and {wording.significant(spent.joules_per_sample)} J per "
        "sample."
    )


def fault_sentence(score: FleetScore) -> str:
    """Return the effect of the faults and the number of fallbacks; empty if there were neither."""
    if not score.faults and not score.num_fallbacks:
        return ""
    if score.num_fallbacks:
        text = (
            f"{score.num_fallbacks:,} samples asked for a head and got none in time; the device's last or "
            "static head answered them."
        )
    else:
        text = "Every sample that asked for a head got one."
    if score.faults:
        gone = sum(fault.effect in ("recovered", "none seen") for fault in score.faults)
        text += f" Of {len(score.faults):,} faults {gone:,} had no effect that lasted to the end of the run."
    return text


def _comparison(found: Comparison) -> str:
    numbers = (
        f"{wording.percent(found.answers)} against {wording.percent(found.static)} mean accuracy over "
        f"{wording.devices(found.num_devices)} ({wording.points(found.test.difference)} points"
    )
    if found.test.interval is not None:
        interval = wording.interval_points(found.test.interval)
        numbers += f", 95% interval {interval}, {wording.tested(found.test)}"
    return numbers + ")"


def _key_numbers(score: FleetScore) -> list[KeyNumber]:
    p50_s, p99_s = total_latency(score)
    up, down = score.spending.uplink_bytes_per_sample, score.spending.downlink_bytes_per_sample
    latency = f"{wording.milliseconds(p50_s)} / {wording.milliseconds(p99_s)}"
    differences = [
        KeyNumber(value=wording.points(found.test.difference), label=label)
        for found, label in (
            (score.against(STATIC_MODEL, HELD_OUT), "points to the static model on held-out devices"),
            (score.against(STATIC_HEAD), "points to the personal model's static head"),
        )
        if found is not None
    ]
    return [
        KeyNumber(value=wording.percent(score.answers.sample), label="of the answers given right"),
        KeyNumber(value=wording.percent(score.static_model.sample), label="static model on the same samples"),
        *differences,
        KeyNumber(value=wording.percent(score.share("fresh")), label="of the samples got a fresh head"),
        KeyNumber(value=latency, label="ms from sample to answer, p50 / p99"),
        KeyNumber(value=f"{wording.kib(up)} / {wording.kib(down)}", label="KiB up / down per sample"),
        KeyNumber(value=wording.significant(score.spending.joules_per_sample), label="joules per sample"),
    ]


def _setting(scenario: Scenario) -> list[tuple[str, str]]:
    cloud = scenario.cloud
    return [
        ("Scenario", f"{scenario.name}, seed {scenario.seed}"),
        ("Devices", f"{scenario.active_devices:,} of {scenario.registered_devices:,}"),
        ("Duration", wording.duration(scenario.duration_s)),
        ("Profiles", ", ".join(profile.name for profile in scenario.profiles)),
        ("Arrivals", scenario.arrivals.kind),
        ("Drift", scenario.drift.kind),
        ("Networks", ", ".join(wording.network(name) for name in dict.fromkeys(scenario.networks))),
        ("Request policy", scenario.policy.kind),
        ("Head codec", scenario.codec),
        ("Faults", ", ".join(fault.kind for fault in scenario.faults) or "none"),
        (
            "Generator in virtual time",
            f"{cloud.replicas} replicas, batches of up to {cloud.max_batch}, "
            f"{wording.milliseconds(cloud.batch_s)} ms per batch and {wording.milliseconds(cloud.head_s)} ms "
            "per head",
        ),
    ]


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
