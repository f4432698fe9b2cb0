"""The plots of a scenario run, as inline SVG in the style of `hyperfleet.evaluation.svg`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import FaultScore
from hyperfleet.evaluation.fleet_score import FleetScore
from hyperfleet.evaluation.measures import ALL_SAMPLES, PARTS, TOTAL
from hyperfleet.evaluation.svg import HELD_OUT, INK, PERSONALIZED, SEEN, STATIC, svg

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
            "Share of right answers among the samples that arrived in each stretch of the run." + shaded,
        ),
        (
            accuracy_by_device(score),
            "Emulated devices by the share of their samples that were answered right, and by what the static "
            "model would have got.",
        ),
        (
            latency_split(score),
            "Where the time from sample to answer goes: mean of each part. Line: p50 of the whole; diamond: "
            "p99.",
        ),
        (
            latency_over_time(score),
            "Latency of the samples that arrived in each stretch, log scale." + shaded,
        ),
        (
            requests_over_time(score),
            "Requests sent in each stretch, those made again included." + shaded,
        ),
        (
            bytes_over_time(score),
            "Bytes of messages by the time at which they were sent (up) or had arrived (down)." + shaded,
        ),
    ]
    if score.faults:
        plots.append(
            (
                fault_timeline(score),
                "Each fault from its beginning to the end of its cause, and on until samples were served as "
                "before it. A cross: no recovery was seen by the end of the run.",
            )
        )
    return plots


def accuracy_over_time(score: FleetScore) -> str:
    """Draw the accuracy of the answers given, of the static model and of the static head over time."""
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
    """Draw how accuracy is distributed over the emulated devices."""
    devices = score.devices

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 100, 21).tolist()
        for name, accuracy, colour, filled in (
            ("answers given", devices.answers, PERSONALIZED, True),
            ("static model", devices.static_model, STATIC, False),
        ):
            # The last bin of a histogram includes its right edge, so that 100% has a place.
            axes.hist(
                100 * accuracy,
                bins=edges,
                histtype="stepfilled" if filled else "step",
                color=colour,
                alpha=0.55 if filled else 1.0,
                linewidth=1.8,
                label=name,
            )
        axes.set(xlabel="accuracy of a device (%)", ylabel="devices", xlim=(0, 100))
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("accuracy-by-device", "Histogram of the accuracy of each device", draw)


def latency_split(score: FleetScore) -> str:
    """Draw the mean of each part of the latency, stacked, one bar a group of samples."""
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
    """Draw median and 99th percentile of the latency over time."""
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
    """Draw the requests a second over time."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        axes.stairs(time.requests_per_s, time.edges_s, color=PERSONALIZED, linewidth=1.4)
        _shade(axes, score)
        axes.set(
            xlabel="time (s)", ylabel="requests a second", xlim=(0, float(time.edges_s[-1])), ylim=(0, None)
        )

    return svg("requests-over-time", "Requests a second over the time of the run", draw)


def bytes_over_time(score: FleetScore) -> str:
    """Draw the bytes a second over time, down on top of up."""
    time = score.over_time

    def draw(axes: Axes) -> None:
        up, down = (each / 2**20 for each in (time.uplink_bytes_per_s, time.downlink_bytes_per_s))
        axes.stairs(up, time.edges_s, fill=True, color=STATIC, label="up")
        axes.stairs(up + down, time.edges_s, baseline=up, fill=True, color=SEEN, label="down")
        _shade(axes, score)
        axes.set(xlabel="time (s)", ylabel="MiB a second", xlim=(0, float(time.edges_s[-1])), ylim=(0, None))
        axes.figure.legend(loc="outside upper center", ncols=2)

    return svg("bytes-over-time", "Bytes a second over the time of the run, up and down", draw)


def fault_timeline(score: FleetScore) -> str:
    """Draw when each fault was there and when its effect was over."""
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
    """Name a group of samples as tables and plots call it."""
    heads = {
        "fresh": "Fresh head",
        "cached": "Cached head",
        "static": "Static head",
        ALL_SAMPLES: "All samples",
    }
    return heads[name] if name in heads else wording.network(name)


def _shade(axes: Axes, score: FleetScore) -> None:
    """Mark the stretches in which a fault was there."""
    last_s = float(score.over_time.edges_s[-1])
    for begin_s, end_s in sorted({_span(fault, last_s) for fault in score.faults}):
        axes.axvspan(begin_s, end_s, color=INK, alpha=0.1, linewidth=0)


def _span(fault: FaultScore, last_s: float) -> tuple[float, float]:
    return fault.begin_s, last_s if fault.end_s is None else fault.end_s
