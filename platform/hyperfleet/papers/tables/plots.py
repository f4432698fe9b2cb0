"""Plots of the tables page: accuracy by method, frames and bytes per head; download delay by network."""

import statistics
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes

from hyperfleet.evaluation.svg import INK, PERSONALIZED, STATIC, svg
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.methods import METHODS, personalizes
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cell import CellResult
from hyperfleet.papers.experiments.plan import FLEETQA, FRAMES, HEAD_FORMS, WITH_DUET
from hyperfleet.papers.tables import modules
from hyperfleet.papers.tables.measured import Measured
from hyperfleet.tasks import OPEN_ENDED_QA

Key = TypeVar("Key")


def plots(measured: Measured) -> list[tuple[str, str]]:
    """Return (SVG, caption) of every plot whose cells are finished."""
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
                f"Fine-tuning by number of frames{_seeds(by_frames)}: accuracy, and time per epoch.",
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
    caption = "Time to download one head for MSRVTT-QA: bars are size over rate, crosses are as printed."
    return [*found, (_by_network(), caption)]


def _by_network() -> str:
    """Plot the download delay by network beside the values that StableSynthNet prints."""
    size = modules.download_bytes(published.MSRVTT_QA, "cdc_mmpg") or 0
    printed = {
        delay.network.label: float(delay.printed_ms)
        for delay in published.DELAYS
        if delay.printed_ms and (delay.dataset, delay.direction) == (published.MSRVTT_QA, "down")
    }

    def draw(axes: Axes) -> None:
        places = range(len(PAPER_NETWORKS))
        ours = [published.delay_ms(network, "down", size) for network in PAPER_NETWORKS.values()]
        axes.bar(places, ours, 0.5, color=PERSONALIZED, label="ours")
        axes.plot(places, list(printed.values()), "x", color=INK, markersize=8, label="printed")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(places, [label.replace(" ", "\n") for label in printed])
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="download delay (ms, log scale)")
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("by-network", "Download delay by network, ours beside the printed values", draw)


def _same_seeds(groups: dict[Key, list[CellResult]]) -> dict[Key, list[CellResult]]:
    """Keep the seeds that all have: seeds differ more than most methods do."""
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
        other.plot(numbers, took, "s--", color=PERSONALIZED, label="time per epoch")
        other.set(ylabel="s per epoch", ylim=(0, None))
        other.grid(visible=False)
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("by-frames", "Accuracy and time per epoch by number of frames", draw)


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
        axes.set(xlabel="KiB per head (log scale)", ylabel="accuracy (%)")

    return svg("by-bytes", "Accuracy against the size of a generated head", draw)
