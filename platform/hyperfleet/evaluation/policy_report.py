"""Comparison of runs that differ in request policy or codec: accuracy against bytes and joules.

All runs answer the same samples, so differences are paired.
"""

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fleet_score import FleetScore, total_latency
from hyperfleet.evaluation.paired import PairedDifference, compare_mean, holm_corrected
from hyperfleet.evaluation.rendering import Cell, Table, row, to_markdown, write_page
from hyperfleet.evaluation.svg import INK, STATIC, svg
from hyperfleet.seeding import numpy_generator

PAGE, MARKDOWN, FIGURES = "policies.html", "policies.md", "policies.csv"
NOTES = (
    "All runs have the same devices, samples and networks; their names give the differences. Fewer heads "
    "cost fewer bytes and joules, but heads are older when they are used.",
    "The line joins the runs that no other run beats in both cost and accuracy. A run below it costs more "
    "than another one that answers as well.",
    "Differences and tests compare with the first row, over the devices of the data set. Those are the "
    "independent units: emulated devices share their material. p-values are corrected by Holm over the rows.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyRun:
    """Name and score of one run, e.g. "every-n, rank4"."""

    name: str
    score: FleetScore


def compare_runs(reference: FleetScore, score: FleetScore, seed: int = 0) -> PairedDifference:
    """Compare two runs on the same samples: `score` minus `reference`, mean over the data set's devices.

    Raises:
        ConfigError: the runs did not answer the same samples.
    """
    ours, theirs = score.sources, reference.sources
    if not (
        np.array_equal(ours.device_id, theirs.device_id)
        and np.array_equal(ours.num_samples, theirs.num_samples)
    ):
        raise ConfigError(
            f"only runs that answered the same samples can be compared, got {score.num_samples:,} samples of "
            f"{len(ours.device_id):,} devices of the data set and {reference.num_samples:,} of "
            f"{len(theirs.device_id):,}; run them with one scenario, seed and data set, and without "
            "batteries that run out"
        )
    return compare_mean(theirs.answers, ours.answers, numpy_generator(seed, "bootstrap", "policies"))


def policy_table(runs: Sequence[PolicyRun], *, title: str) -> Table:
    """Build the table; differences compare with the first run.

    Raises:
        ConfigError: no run, or runs with different samples.
    """
    _check(runs)
    tests = holm_corrected([None, *(compare_runs(runs[0].score, run.score) for run in runs[1:])])
    rows = []
    for index, (run, test) in enumerate(zip(runs, tests, strict=True)):
        spent, (p50_s, p99_s) = run.score.spending, total_latency(run.score)
        rows.append(
            row(
                run.name,
                wording.percent(run.score.share("fresh")),
                wording.kib(spent.uplink_bytes_per_sample),
                wording.kib(spent.downlink_bytes_per_sample),
                wording.significant(spent.joules_per_sample),
                f"{wording.milliseconds(p50_s)} / {wording.milliseconds(p99_s)}",
                wording.percent(run.score.answers.sample),
                *_difference(test),
                strong=not index,
            )
        )
    first = runs[0].score
    return Table(
        name="policies",
        title=title,
        columns=(
            "run",
            "fresh heads",
            "KiB up",
            "KiB down",
            "joules",
            "p50 / p99, ms",
            "accuracy",
            "- first (points)",
            "95% interval",
            *wording.P_COLUMNS,
        ),
        rows=tuple(rows),
        footnotes=(
            f"Bytes and joules are means over all {first.num_samples:,} samples, including those without a "
            "request. Latency: from sample to answer.",
            f"Accuracy on the same samples: static model {wording.percent(first.static_model.sample)}, "
            f"personal model's static head {wording.percent(first.static_head.sample)}.",
        ),
    )


def bytes_curve(runs: Sequence[PolicyRun]) -> str:
    """Plot accuracy against bytes per sample, both directions."""
    return _curve(
        runs,
        lambda score: score.spending.bytes_per_sample / 1024,
        name="accuracy-by-bytes",
        label="Accuracy against bytes per sample",
        axis="KiB per sample, up and down",
    )


def joules_curve(runs: Sequence[PolicyRun]) -> str:
    """Plot accuracy against joules per sample."""
    return _curve(
        runs,
        lambda score: score.spending.joules_per_sample,
        name="accuracy-by-joules",
        label="Accuracy against joules per sample",
        axis="joules per sample",
    )


def best_runs(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Return the indices of the runs that no other beats in cost and accuracy, cheapest first."""
    best: list[int] = []
    for index in sorted(range(len(costs)), key=lambda each: (costs[each], -accuracies[each])):
        if not best or accuracies[index] > accuracies[best[-1]]:
            best.append(index)
    return best


def write_policy_report(runs: Sequence[PolicyRun], folder: Path, *, title: str) -> Path:
    """Write page, Markdown and CSV into `folder` and return the page.

    Raises:
        ConfigError: no run, or runs with different samples.
    """
    table = policy_table(runs, title=title)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKDOWN).write_text(to_markdown(table), encoding="utf-8")
    _write_csv(runs, folder / FIGURES)
    return write_page(
        folder / PAGE,
        title=title,
        kind="request policies",
        headline=title,
        sentences=[_sentence(runs)],
        tables=[table],
        plots=[
            (bytes_curve(runs), "Accuracy against the bytes that crossed the links."),
            (joules_curve(runs), "Accuracy against the energy that the devices used."),
        ],
        notes=NOTES,
    )


def _check(runs: Sequence[PolicyRun]) -> None:
    names = [run.name for run in runs]
    if not runs or len(set(names)) != len(names):
        raise ConfigError(
            f"a comparison needs at least one run and different names, got {names}; name each run after what "
            "differs"
        )


def _difference(test: PairedDifference | None) -> tuple[str | Cell, ...]:
    if test is None:
        return ("", "", "", "")
    return (
        wording.points(test.difference),
        wording.interval_points(test.interval),
        *wording.p_values(test),
    )


def _sentence(runs: Sequence[PolicyRun]) -> str:
    costs = [run.score.spending.bytes_per_sample for run in runs]
    best = best_runs(costs, [run.score.answers.sample for run in runs])
    listed = "; ".join(
        f"{runs[i].name}: {wording.percent(runs[i].score.answers.sample)} for {wording.kib(costs[i])} KiB"
        for i in best
    )
    return f"From fewest bytes to highest accuracy, without runs that another run beats: {listed}."


def _curve(
    runs: Sequence[PolicyRun], cost: Callable[[FleetScore], float], *, name: str, label: str, axis: str
) -> str:
    costs = [cost(run.score) for run in runs]
    values = [100 * run.score.answers.sample for run in runs]
    best = best_runs(costs, values)
    static = 100 * runs[0].score.static_model.sample

    def draw(axes: Axes) -> None:
        axes.plot(
            [costs[i] for i in best], [values[i] for i in best], "-", color=INK, linewidth=0.8, alpha=0.6
        )
        # A legend, because labels of policies with few requests would overlap; the scale spreads small costs.
        for run, at, value, marker in zip(runs, costs, values, itertools.cycle("osD^vP*X"), strict=False):
            axes.plot([at], [value], marker, linestyle="none", label=run.name)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.axhline(static, color=STATIC, linestyle="--", label="static model, nothing sent")
        axes.margins(0.15)
        axes.set(xlabel=axis, ylabel="accuracy (%)")
        axes.figure.legend(loc="outside right upper", fontsize=7)

    return svg(name, label, draw)


def _write_csv(runs: Sequence[PolicyRun], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "run",
                "samples",
                "accuracy",
                "fresh_share",
                "uplink_bytes_per_sample",
                "downlink_bytes_per_sample",
                "joules_per_sample",
                "p50_s",
                "p99_s",
            ]
        )
        for run in runs:
            spent = run.score.spending
            writer.writerow(
                [
                    run.name,
                    run.score.num_samples,
                    run.score.answers.sample,
                    run.score.share("fresh"),
                    spent.uplink_bytes_per_sample,
                    spent.downlink_bytes_per_sample,
                    spent.joules_per_sample,
                    *total_latency(run.score),
                ]
            )
