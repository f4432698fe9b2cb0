"""The report of a scenario run: one HTML page that needs nothing but a browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import WINDOW
from hyperfleet.evaluation.figures import fleet_plots
from hyperfleet.evaluation.fleet_score import FleetScore, total_latency
from hyperfleet.evaluation.rendering import ENVIRONMENT, Table, to_html
from hyperfleet.scenario.definition import Scenario

NOTES = (
    "Every sample is answered by what the device had: a fresh head made for it, the last one it got "
    "(cached), or the personal model's own static head. The static model is another one, trained without any "
    "head from the cloud (Fine-tuning); it answers the same samples.",
    "A fallback is a sample for which the device asked for a head and got none in time; a cached or static "
    "head that the request policy meant to use is none.",
    "Emulated devices share the material of the data set's devices and show it again and again. Intervals "
    "and p-values therefore take the data set's devices as the independent units, not the emulated ones: "
    "more emulated devices make no difference more certain.",
    "Times are those of the emulation: links and device chips are models with the figures of the scenario. "
    "One run is one seed.",
    f"Recovery is looked for in windows of {WINDOW} samples in the order of their arrival: a window is as "
    "before when its p99 and its fallbacks are no worse than those of the worst window before the fault.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyNumber:
    """A number at the top of the page."""

    value: str
    label: str


def write_report(
    path: Path,
    score: FleetScore,
    scenario: Scenario,
    tables: Sequence[Table],
    *,
    provenance: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the report of a run and return where it is.

    Args:
        path: the file to write; its folder is made if need be.
        score: what the run brought.
        scenario: what was run.
        tables: those of `fleet_tables`.
        provenance: names and values that say where the run came from: model, data, commands, versions.
    """
    page = ENVIRONMENT.get_template("report.html.j2").render(
        title=f"scenario {scenario.name}, seed {scenario.seed}",
        kind=f"scenario {scenario.name}",
        outcome=wording.outcome(score.against_static_model),
        headline=headline(score),
        sentences=[
            text for text in (scenario.description, cost_sentence(score), fault_sentence(score)) if text
        ],
        key_numbers=_key_numbers(score),
        tables=[to_html(table) for table in tables],
        plots=fleet_plots(score),
        notes=NOTES,
        provenance=[*_setting(scenario), *provenance],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def headline(score: FleetScore) -> str:
    """One sentence with the true result against the static model, whichever it favours."""
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
            f"{wording.interval_points(test.interval)})"
        )
    return f"{opening}: {numbers}."


def cost_sentence(score: FleetScore) -> str:
    """Say what a sample cost in time, bytes and joules, and what answered it."""
    p50_s, p99_s = total_latency(score)
    spent = score.spending
    heads = ", ".join(
        f"{wording.percent(score.share(name))} by a {name} head" for name in score.heads if score.heads[name]
    )
    return (
        f"Samples were answered {heads}, {wording.milliseconds(p50_s)} ms after they arrived at the median "
        f"and {wording.milliseconds(p99_s)} ms at the 99th percentile, for "
        f"{wording.kib(spent.bytes_per_sample)} KiB and {wording.significant(spent.joules_per_sample)} J a "
        "sample."
    )


def fault_sentence(score: FleetScore) -> str:
    """Say what became of the fleet in the faults; empty where there was none."""
    if not score.faults and not score.num_fallbacks:
        return ""
    if score.num_fallbacks:
        said = (
            f"{score.num_fallbacks:,} samples asked for a head and got none in time; the device's last or "
            "static head answered them."
        )
    else:
        said = "No sample that asked for a head went without."
    if score.faults:
        gone = sum(fault.effect in ("recovered", "none seen") for fault in score.faults)
        said += f" Of {len(score.faults):,} faults {gone:,} had no effect that lasted to the end of the run."
    return said


def _key_numbers(score: FleetScore) -> list[KeyNumber]:
    p50_s, p99_s = total_latency(score)
    up, down = score.spending.uplink_bytes_per_sample, score.spending.downlink_bytes_per_sample
    latency = f"{wording.milliseconds(p50_s)} / {wording.milliseconds(p99_s)}"
    return [
        KeyNumber(value=wording.percent(score.answers.sample), label="of the answers given right"),
        KeyNumber(value=wording.percent(score.static_model.sample), label="static model on the same samples"),
        KeyNumber(value=wording.percent(score.share("fresh")), label="of the samples got a fresh head"),
        KeyNumber(value=latency, label="ms from sample to answer, p50 / p99"),
        KeyNumber(value=f"{wording.kib(up)} / {wording.kib(down)}", label="KiB up / down a sample"),
        KeyNumber(value=wording.significant(score.spending.joules_per_sample), label="joules a sample"),
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
            f"{wording.milliseconds(cloud.batch_s)} ms a batch and {wording.milliseconds(cloud.head_s)} ms "
            "a head",
        ),
    ]
