"""Plots of a fleet run as inline SVG."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import FaultScore
from hyperfleet.evaluation.fleet_score import FleetScore
from hyperfleet.evaluation.measures import ALL_SAMPLES, PARTS, TOTAL
from hyperfleet.evaluation.svg import HELD_OUT, INK, PERSONALIZED, SEEN, STATIC, svg

MAX_BINS_EACH_SIDE = 20

PART_COLOURS = dict(
    zip(PARTS, ("#999999", "#56b4e9", "#f0e442", "#0072b2", "#009e73", "#cc79a7"), strict=True)
)
_STATIC_HEAD = "#009e73"
_RECOVERING = "#f0e442"


def fleet_plots(score: FleetScore) -> list[tuple[str, str]]:
    """Return (SVG, caption) of every plot of a run."""
    shaded = " Shaded: a fault." if score.faults else ""
    plots = [
        (
            accuracy_over_time(score),
            "Share of right answers by the time at which samples arrived." + shaded,
        ),
        (
            accuracy_by_device(score),
            "Emulated devices by accuracy: of the answers given, and of the static model on the same "
            "samples.",
        ),
        (
            accuracy_difference(score),
            "Answers given minus static model for each device of the data set; right of zero the fleet is "
            "better.",
        ),
        (
            latency_split(score),
            "Mean of each part of the time from sample to answer. Line: p50 of the total; diamond: p99.",
        ),
        (
            latency_over_time(score),
            "Latency by the time at which samples arrived, log scale." + shaded,
        ),
        (
            requests_over_time(score),
            "Requests sent, repeated ones included." + shaded,
        ),
        (
            bytes_over_time(score),
            "Bytes of messages by the time at which they were sent (up) or arrived (down)." + shaded,
        ),
    ]
    if score.faults:
        plots.append(
            (
                fault_timeline(score),
                "Each fault from its start to the end of its cause, and then until samples were served as "
                "before it. Cross: no recovery seen by the end of the run.",
            )
        )
    return plots


def accuracy_over_time(score: FleetScore) -> str:
    """Plot the accuracy of the answers given, the static model and the static head over time."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        middle_s = (time.edges_s[1:] + time.edges_s[:-1]) / 2
        for name, accuracy, colour, dash in (
            ("answers given", time.accuracy, PERSONALIZED, "-"),
            ("static model", time.static_model_accuracy, STATIC, "--"),
            ("own static head", time.static_head_accuracy, _STATIC_HEAD, ":"),
        ):
            filled = np.isfinite(accuracy)
            axes.plot(middle_s[filled], 100 * accuracy[filled], dash, color=colour, linewidth=1.6, label=name)
        _shade(axes, score)
        axes.set(xlabel="time (s)", ylabel="accuracy (%)", xlim=(0, float(time.edges_s[-1])), ylim=(0, 100))
        axes.figure.legend(loc="outside upper center", ncols=3)

    return svg("accuracy-over-time", "Accuracy over the time of the run", draw)


def accuracy_by_device(score: FleetScore) -> str:
    """Plot the distribution of accuracy over the emulated devices."""
    devices = score.devices

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 100, 21).tolist()
        for name, accuracy, colour, filled in (
            ("answers given", devices.answers, PERSONALIZED, True),
            ("static model", devices.static_model, STATIC, False),
        ):
            # The last bin includes its right edge, 100%.
            axes.hist(
                100 * accuracy,
                bins=edges,
                histtype="stepfilled" if filled else "step",
                color=colour,
                alpha=0.55 if filled else 1.0,
                linewidth=1.8,
                label=name,
            )
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="accuracy per device (%)", ylabel="devices", xlim=(0, 100))
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("accuracy-by-device", "Histogram of the accuracy of each device", draw)


def accuracy_difference(score: FleetScore) -> str:
    """Plot the distribution of answers given minus static model over the data set's devices."""
    sources = score.sources
    gains = 100 * (sources.answers - sources.static_model)

    def draw(axes: Axes) -> None:
        # The bins are no finer than the step that one sample makes.
        edges = _edges(gains, 100 / float(np.median(sources.num_samples)))
        bottom = np.zeros(len(edges) - 1)
        for name, mask, colour, hatch in (
            ("seen devices", ~score.held_out, SEEN, ""),
            ("held-out devices", score.held_out, HELD_OUT, "//"),
        ):
            if mask.any():
                counts, _ = np.histogram(gains[mask], bins=edges)
                axes.bar(edges[:-1], counts, np.diff(edges), bottom, align="edge", color=colour, hatch=hatch,
                         edgecolor="white", linewidth=0.3, label=name)  # fmt: skip
                bottom += counts
        axes.axvline(0, color=INK, linewidth=1)
        mean = float(gains.mean())
        axes.axvline(mean, color=INK, linewidth=1.2, linestyle="--", label=f"mean {mean:+.1f}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="answers given minus static model (points)", ylabel="devices of the data set")
        axes.figure.legend(loc="outside upper center", ncols=3)

    return svg("accuracy-difference", "Histogram of the accuracy difference of each device", draw)


def _edges(gains: np.ndarray, step: float) -> np.ndarray:
    """Return edges of bins of 1, 2, 5, 10 or 20 points, at least `step` wide; one bin is centred on zero."""
    reach = float(np.abs(gains).max())
    width = next((w for w in (1, 2, 5, 10) if w >= step * 0.99 and reach / w <= MAX_BINS_EACH_SIDE), 20)
    num_each_side = int(np.ceil(max(reach, width) / width))
    return (np.arange(-num_each_side, num_each_side + 2) - 0.5) * width


def latency_split(score: FleetScore) -> str:
    """Plot the mean of each part of the latency, stacked, one bar per group of samples."""
    groups = score.latency[::-1]

    def draw(axes: Axes) -> None:
        places = np.arange(len(groups))
        left = np.zeros(len(groups))
        for part in PARTS:
            means_ms = np.array([1000 * group.parts[part].mean_s for group in groups])
            axes.barh(places, means_ms, left=left, height=0.62, color=PART_COLOURS[part], label=part)
            left += means_ms
        for name, marker, quantile in (("p50", "|", "p50_s"), ("p99", "D", "p99_s")):
            totals_ms = [1000 * getattr(group.parts[TOTAL], quantile) for group in groups]
            axes.plot(totals_ms, places, marker, color=INK, markersize=16 if marker == "|" else 4, label=name)
        axes.set_yticks(places, [group_label(group.name) for group in groups])
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="mean latency (ms)", xlim=(0, None))
        axes.figure.legend(loc="outside upper center", ncols=4, markerscale=0.6)

    return svg("latency-split", "Mean latency by part, for all samples, by head and by network", draw)


def latency_over_time(score: FleetScore) -> str:
    """Plot median and 99th percentile of the latency over time."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        middle_s = (time.edges_s[1:] + time.edges_s[:-1]) / 2
        for name, seconds, colour in (("p99", time.p99_s, HELD_OUT), ("p50", time.p50_s, PERSONALIZED)):
            filled = np.isfinite(seconds)
            axes.plot(middle_s[filled], 1000 * seconds[filled], color=colour, linewidth=1.6, label=name)
        _shade(axes, score)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="time (s)", ylabel="latency (ms)", xlim=(0, float(time.edges_s[-1])))
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("latency-over-time", "Latency over the time of the run, median and 99th percentile", draw)


def requests_over_time(score: FleetScore) -> str:
    """Plot requests per second over time."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        axes.stairs(time.requests_per_s, time.edges_s, color=PERSONALIZED, linewidth=1.4)
        _shade(axes, score)
        axes.set(xlabel="time (s)", ylabel="requests/s", xlim=(0, float(time.edges_s[-1])), ylim=(0, None))

    return svg("requests-over-time", "Requests per second over the time of the run", draw)


def bytes_over_time(score: FleetScore) -> str:
    """Plot bytes per second over time, down on top of up."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        up, down = (each / 2**20 for each in (time.uplink_bytes_per_s, time.downlink_bytes_per_s))
        axes.stairs(up, time.edges_s, fill=True, color=STATIC, label="up")
        axes.stairs(up + down, time.edges_s, baseline=up, fill=True, color=SEEN, label="down")
        _shade(axes, score)
        axes.set(xlabel="time (s)", ylabel="MiB/s", xlim=(0, float(time.edges_s[-1])), ylim=(0, None))
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("bytes-over-time", "Bytes per second over the time of the run, up and down", draw)


def fault_timeline(score: FleetScore) -> str:
    """Plot when each fault was active and when its effect ended."""
    faults, last_s = score.faults[::-1], float(score.over_time.edges_s[-1])

    def draw(axes: Axes) -> None:
        for place, fault in enumerate(faults):
            end_s = last_s if fault.end_s is None else fault.end_s
            axes.barh(place, end_s - fault.begin_s, left=fault.begin_s, height=0.5, color=HELD_OUT)
            after_s = fault.recovery_after_end_s
            if fault.effect == "no recovery seen":
                axes.plot([last_s], [place], "x", color=INK, markersize=8, clip_on=False)
                after_s = last_s - end_s
            if after_s:
                axes.barh(place, after_s, left=end_s, height=0.5, color=_RECOVERING)
        axes.set_yticks(range(len(faults)), [fault.kind for fault in faults])
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="time (s)", xlim=(0, last_s), ylim=(-0.6, len(faults) - 0.4))
        marks = [
            Patch(color=HELD_OUT, label="fault"),
            Patch(color=_RECOVERING, label="until served as before"),
        ]
        axes.figure.legend(handles=marks, loc="outside upper center", ncols=2)

    return svg("faults", "Faults over the time of the run, each with its recovery", draw)


def group_label(name: str) -> str:
    """Return the label of a group of samples in tables and plots."""
    heads = {
        "fresh": "Fresh head",
        "cached": "Cached head",
        "static": "Static head",
        ALL_SAMPLES: "All samples",
    }
    return heads[name] if name in heads else wording.network(name)


def _shade(axes: Axes, score: FleetScore) -> None:
    """Shade the times at which a fault was active."""
    last_s = float(score.over_time.edges_s[-1])
    for begin_s, end_s in sorted({_span(fault, last_s) for fault in score.faults}):
        axes.axvspan(begin_s, end_s, color=INK, alpha=0.1, linewidth=0)


def _span(fault: FaultScore, last_s: float) -> tuple[float, float]:
    return fault.begin_s, last_s if fault.end_s is None else fault.end_s
