"""The plots of a report as inline SVG: no script, system fonts, and ink that follows the page's colours.

Drawn with matplotlib's object-oriented API, so importing this chooses no backend for anybody else.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyperfleet.evaluation import published, wording
from hyperfleet.evaluation.facts import RunFacts
from hyperfleet.evaluation.latency import PARTS, TOTAL
from hyperfleet.evaluation.metrics import FleetScore
from hyperfleet.link.network import PAPER_NETWORKS

# Okabe and Ito's palette, told apart with every common colour vision.
STATIC = "#e69f00"
PERSONALIZED = "#0072b2"
SEEN = "#56b4e9"
HELD_OUT = "#d55e00"
PART_COLOURS = dict(zip(PARTS, ("#56b4e9", "#f0e442", "#0072b2", "#009e73", "#cc79a7"), strict=True))

# Drawn as this colour, then replaced by `currentColor`: text and axes follow light and dark pages.
INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hyperfleet",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_SIZE_INCHES = (5.2, 3.4)


def accuracy_by_device(score: FleetScore) -> str:
    """Accuracy of each head over the devices, each curve sorted on its own."""
    devices = score.devices

    def draw(axes: Axes) -> None:
        share = (np.arange(len(devices.device_id)) + 0.5) / len(devices.device_id) * 100
        for name, accuracy, colour, dash in (
            ("static head", devices.static_accuracy, STATIC, "--"),
            ("personalized head", devices.personalized_accuracy, PERSONALIZED, "-"),
        ):
            axes.plot(share, 100 * np.sort(accuracy), dash, color=colour, linewidth=2, label=name)
        axes.axvline(10, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate("10th percentile", (10, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                      textcoords="offset points")  # fmt: skip
        axes.set(xlabel="devices, worst first (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
        axes.legend(loc="upper left")

    return svg("accuracy", "Accuracy of static and personalized head over the devices, worst first", draw)


def accuracy_difference(score: FleetScore) -> str:
    """Histogram of personalized minus static accuracy a device, seen and held-out devices marked."""
    devices = score.devices
    gains = 100 * (devices.personalized_accuracy - devices.static_accuracy)

    def draw(axes: Axes) -> None:
        edges = _edges(gains, 100 / float(np.median(devices.num_samples)))
        bottom = np.zeros(len(edges) - 1)
        for name, mask, colour, hatch in (
            ("seen devices", devices.seen, SEEN, ""),
            ("held-out devices", ~devices.seen, HELD_OUT, "//"),
        ):
            if mask.any():
                counts, _ = np.histogram(gains[mask], bins=edges)
                axes.bar(edges[:-1], counts, np.diff(edges), bottom, align="edge", color=colour, hatch=hatch,
                         edgecolor="white", linewidth=0.3, label=name)  # fmt: skip
                bottom += counts
        axes.axvline(0, color=INK, linewidth=1)
        mean = float(gains.mean())
        axes.axvline(mean, color=INK, linewidth=1.2, linestyle="--", label=f"mean {mean:+.1f}")
        axes.set(xlabel="personalized minus static (points)", ylabel="devices")
        axes.margins(y=0.28)
        axes.legend(loc="upper left")

    return svg("difference", "Histogram of the accuracy difference of each device", draw)


def latency_split(score: FleetScore) -> str:
    """Mean latency by part, stacked, one bar a network; p50 and p99 of the total marked."""
    splits = score.latency[::-1]

    def draw(axes: Axes) -> None:
        rows = np.arange(len(splits))
        left = np.zeros(len(splits))
        for part in PARTS:
            means_ms = np.array([1000 * split.parts[part].mean_s for split in splits])
            axes.barh(rows, means_ms, left=left, height=0.62, color=PART_COLOURS[part], label=part)
            left += means_ms
        for name, marker, quantile in (("p50 of total", "|", "p50_s"), ("p99 of total", "D", "p99_s")):
            totals_ms = [1000 * getattr(split.parts[TOTAL], quantile) for split in splits]
            axes.plot(totals_ms, rows, marker, color=INK, markersize=26 if marker == "|" else 4, label=name)
        axes.set_yticks(rows, [wording.network(split.network) for split in splits])
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="mean latency (ms)", xlim=(0, None))
        axes.figure.legend(loc="outside upper center", ncols=4, markerscale=0.6)

    return svg("latency", "Mean personalization latency by part and network", draw)


def network_delay(score: FleetScore, facts: RunFacts) -> str:
    """Delay of the download a network: computed for three head sizes, printed, and measured in this run."""
    dataset = published.MSRVTT_QA
    layout_bytes = 4 * 97 * published.NUM_CLASSES[dataset]
    networks = list(PAPER_NETWORKS.values())
    printed = [
        float(delay.printed_ms)
        for delay in published.DELAYS
        if delay.printed_ms and (delay.dataset, delay.direction) == (dataset, "down")
    ]
    emulated = {split.network: 1000 * split.parts["downlink"].p50_s for split in score.latency}

    def draw(axes: Axes) -> None:
        places = np.arange(len(networks))
        ours = [published.delay_ms(network, "down", layout_bytes) for network in networks]
        own = [published.delay_ms(network, "down", facts.head_bytes) for network in networks]
        axes.bar(places - 0.2, ours, 0.38, color=SEEN, label=f"ours, C = {published.NUM_CLASSES[dataset]:,}")
        axes.plot(places - 0.2, printed, "x", color=INK, markersize=8, label=f"printed for {dataset}")
        axes.bar(places + 0.2, own, 0.38, color=PERSONALIZED, label=f"this run, C = {facts.num_classes:,}")
        measured = [(place + 0.2, emulated[n.name]) for place, n in enumerate(networks) if n.name in emulated]
        if measured:
            axes.plot(*zip(*measured, strict=True), "o", color=INK, markersize=5, markerfacecolor="none",
                      label="fleet, median downlink")  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(places, [network.label.replace(" ", "\n") for network in networks])
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="download delay (ms, log scale)")
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("delay", "Download delay by network, ours beside the papers' printed values", draw)


def _edges(gains: np.ndarray, step: float) -> np.ndarray:
    """Bin edges of whole-point width, no finer than the `step` one sample makes; zero gets a bin."""
    reach = float(np.abs(gains).max())
    width = next((w for w in (1, 2, 5, 10) if w >= step * 0.99 and reach / w <= 20), 20)
    num_each_side = int(np.ceil(max(reach, width) / width))
    return (np.arange(-num_each_side, num_each_side + 2) - 0.5) * width


def svg(name: str, label: str, draw: Callable[[Axes], None]) -> str:
    """Draw one plot and return it as an SVG element; `name` keeps its ids apart from other plots'."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        # Without metadata the file names no date, no creator and no schema on the network.
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _inline(buffer.getvalue(), name, label)


def _inline(text: str, name: str, label: str) -> str:
    """Make a stand-alone SVG file part of a page: no prolog, ids of its own, ink of the page."""
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :]
    width, height = (72 * inches for inches in _SIZE_INCHES)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace(INK, "currentColor")
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}">{body}'
