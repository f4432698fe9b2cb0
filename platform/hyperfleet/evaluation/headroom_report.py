"""Table, verdict and page of the headroom of personalization."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.headroom import WORSE_BY, Headroom, Rung
from hyperfleet.evaluation.rendering import Table, row, to_markdown, write_page
from hyperfleet.evaluation.svg import PERSONALIZED, STATIC, svg

PAGE, MARKDOWN = "headroom.html", "headroom.md"
NOTES = (
    "References use what no device has: labels of its other live clips, or the data set's truth about words "
    "and taste. Each is what one way reaches, so the headroom is at least that: a fit on few labels is "
    "noisy, and no reference knows the camera.",
    "Rivals answer each sample from the samples up to it. They need no label, no cloud and no "
    "backpropagation, and send no byte.",
    "Accuracy counts an answer outside the vocabulary as wrong. Tests are over devices.",
)


def headroom_table(found: Headroom, *, title: str) -> Table:
    """Build the table of all rungs."""
    held_out = ~found.seen

    def mean(rung: Rung, mask: np.ndarray) -> str:
        return wording.percent(float(rung.accuracy[mask].mean())) if mask.any() else wording.NOTHING

    rows = []
    for rung in found.rungs:
        share = found.share(rung)
        test = rung.test
        rows.append(
            row(
                rung.name,
                rung.needs or "nothing",
                mean(rung, np.ones_like(found.seen)),
                mean(rung, held_out),
                "" if test is None else wording.points(test.difference),
                "" if test is None else wording.interval_points(test.interval),
                *(("", "") if test is None else wording.p_values(test)),
                wording.NOTHING if share is None else f"{100 * share:.0f}%",
                "" if test is None else wording.percent(rung.worse),
                "" if test is None else wording.significant(rung.device_ms),
                strong=test is None,
            )
        )
    return Table(
        name="headroom",
        title=title,
        columns=(
            "answers by",
            "needs",
            "all devices",
            "held-out",
            "- static (points)",
            "95% interval",
            *wording.P_COLUMNS,
            "of headroom",
            "devices worse",
            "CPU-ms per sample",
        ),
        rows=tuple(rows),
        footnotes=(
            f"{found.num_samples:,} samples of {wording.devices(len(found.seen))}; means over devices, "
            "p-values corrected by Holm over the rows. Headroom is the difference of "
            f"'{found.best.name}'. Devices worse: by more than {100 * WORSE_BY:.0f} points.",
        ),
    )


def verdict(found: Headroom) -> str:
    """Say in one sentence what personalization can bring, and what the best rival takes of it."""
    best = found.best
    assert best.test is not None
    if not _is_better(best):
        return (
            f"No headroom found: {best.name}, the best of all, is not significantly better than the static "
            f"head ({wording.points(best.test.difference)} points, 95% interval "
            f"{wording.interval_points(best.test.interval)}, {wording.tested(best.test)}). The "
            "references know labels, words and taste, not the camera."
        )
    source = {"truth": "told the owner's words and taste", "labels": "fitted with the device's labels"}
    reached = f"a head {source[best.needs]}" if best.needs else best.name
    rivals = [rung for rung in found.rungs[1:] if not rung.needs and _is_better(rung)]
    rival = "no rival is significantly better than the static head"
    if rivals:
        first = max(rivals, key=lambda rung: rung.accuracy.mean())
        share, worse = found.share(first), wording.percent(first.worse)
        assert share is not None
        rival = f"{first.name} takes {100 * share:.0f}% of it, and {worse} of the devices lose"
    return (
        f"Personalization can bring at least {wording.points(best.test.difference)} points here (95% "
        f"interval {wording.interval_points(best.test.interval)}, {reached}). Without a cloud, {rival}."
    )


def _is_better(rung: Rung) -> bool:
    return rung.test is not None and rung.test.is_significant and rung.test.difference > 0


def headroom_bars(found: Headroom) -> str:
    """Plot the accuracy of each rung as a bar."""

    def draw(axes: Axes) -> None:
        rungs = found.rungs[::-1]
        values = [100 * float(rung.accuracy.mean()) for rung in rungs]
        colors = [STATIC if rung.test is None else PERSONALIZED for rung in rungs]
        axes.barh([rung.name for rung in rungs], values, color=colors)
        axes.axvline(100 * float(found.static.accuracy.mean()), color=STATIC, linestyle="--")
        axes.set(xlabel="accuracy, mean over devices (%)")

    return svg("headroom", "Accuracy of the static head, rivals and references", draw)


def write_headroom_report(found: Headroom, folder: Path, *, title: str) -> Path:
    """Write page and Markdown into `folder` and return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    table = headroom_table(found, title=title)
    (folder / MARKDOWN).write_text(f"{to_markdown(table)}\n{verdict(found)}\n", encoding="utf-8")
    return write_page(
        folder / PAGE,
        title=title,
        kind="headroom",
        headline=verdict(found),
        sentences=[],
        tables=[table],
        plots=[(headroom_bars(found), "Rivals and references beside the static head.")],
        notes=NOTES,
    )
