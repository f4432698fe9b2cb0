"""Plots of the tables page: accuracy by method and seed, by frames, and against the bytes of a head."""

import statistics
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes

from hyperfleet.evaluation.svg import INK, PERSONALIZED, STATIC, svg
from hyperfleet.methods import METHODS, personalizes
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cell import CellResult
from hyperfleet.papers.experiments.plan import FLEETQA, FRAMES, HEAD_FORMS, WITH_DUET
from hyperfleet.papers.tables import modules
from hyperfleet.papers.tables.measured import Measured
from hyperfleet.tasks import OPEN_ENDED_QA

Key = TypeVar("Key")


def plots(measured: Measured) -> list[tuple[str, str]]:
    """Return (SVG, caption) of every plot there are cells for."""
    found = []
    by_method = {name: measured.of(FLEETQA, OPEN_ENDED_QA, name) for name in WITH_DUET}
    if any(by_method.values()):
        found.append(
            (
                _by_method({name: cells for name, cells in by_method.items() if cells}),
                "Open-ended question answering on FleetQA: bars are means over seeds, dots are seeds.",
            )
        )
    by_frames = _same_seeds(
        {number: measured.of(FLEETQA, OPEN_ENDED_QA, "fine_tuning", number) for number in FRAMES}
    )
    if all(by_frames.values()):
        found.append(
            (
                _by_frames(by_frames),
                f"Fine-tuning by number of frames{_seeds(by_frames)}: accuracy, and time of an epoch.",
            )
        )
    forms = _same_seeds(
        {name: measured.of(FLEETQA, OPEN_ENDED_QA, name) for name in ("cdc_mmpg", *HEAD_FORMS)}
    )
    if all(forms.values()):
        caption = (
            f"Accuracy against the size of a generated head{_seeds(forms)}; sizes are those of MSRVTT-QA's "
            "1,501 classes."
        )
        found.append((_by_bytes(forms), caption))
    return found


def _same_seeds(groups: dict[Key, list[CellResult]]) -> dict[Key, list[CellResult]]:
    """Keep the seeds that all have: one seed lies further from another than most methods from each other."""
    common = set.intersection(*({cell.spec.train.seed for cell in cells} for cells in groups.values()))
    return {key: [c for c in cells if c.spec.train.seed in common] for key, cells in groups.items()}


def _seeds(groups: dict[Key, list[CellResult]]) -> str:
    seeds = [str(cell.spec.train.seed) for cell in next(iter(groups.values()))]
    return f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _percent(cells: list[CellResult]) -> list[float]:
    return [100 * cell.measures["accuracy"] for cell in cells]


def _by_method(by_method: dict[str, list[CellResult]]) -> str:
    def draw(axes: Axes) -> None:
        names = list(by_method)[::-1]
        for place, name in enumerate(names):
            values = _percent(by_method[name])
            colour = PERSONALIZED if personalizes(METHODS[name]) else STATIC
            axes.barh(place, statistics.fmean(values), 0.62, color=colour)
            axes.plot(values, [place] * len(values), "o", color=INK, markersize=3.5)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="accuracy (%)", xlim=(0, None))

    return svg("by-method", "Accuracy of each method on FleetQA", draw)


def _by_frames(by_frames: dict[int, list[CellResult]]) -> str:
    def draw(axes: Axes) -> None:
        numbers = list(by_frames)
        accuracy = [statistics.fmean(_percent(cells)) for cells in by_frames.values()]
        axes.plot(numbers, accuracy, "o-", color=STATIC, label="accuracy")
        axes.set(xlabel="frames", ylabel="accuracy (%)", xticks=numbers)
        other = axes.twinx()
        took = [statistics.fmean(c.epoch_s or np.nan for c in cells) for cells in by_frames.values()]
        other.plot(numbers, took, "s--", color=PERSONALIZED, label="time of an epoch")
        other.set(ylabel="s an epoch", ylim=(0, None))
        other.grid(visible=False)
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("by-frames", "Accuracy and time of an epoch by number of frames", draw)


def _by_bytes(forms: dict[str, list[CellResult]]) -> str:
    def draw(axes: Axes) -> None:
        for name, cells in forms.items():
            size = modules.download_bytes(published.MSRVTT_QA, name) or 0
            value = statistics.fmean(_percent(cells))
            axes.plot(size / 1024, value, "o", color=PERSONALIZED)
            axes.annotate(name, (size / 1024, value), xytext=(0, 6), textcoords="offset points", ha="center")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.2, y=0.3)
        axes.set(xlabel="KiB a head (log scale)", ylabel="accuracy (%)")

    return svg("by-bytes", "Accuracy against the size of a generated head", draw)
