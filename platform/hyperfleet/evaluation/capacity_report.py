"""Table, plot and page of a capacity plan: replicas and bandwidth by number of devices."""

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.rendering import Table, row, to_markdown, write_page
from hyperfleet.evaluation.svg import PERSONALIZED, svg
from hyperfleet.planning.capacity import CapacityPlan

PAGE, MARKDOWN, FIGURES = "plan.html", "plan.md", "plan.csv"


def capacity_table(plans: Sequence[CapacityPlan]) -> Table:
    """Build the table with one row per number of devices."""
    return Table(
        name="capacity",
        title=f"Generator replicas and bandwidth for p99 <= {wording.milliseconds(plans[0].target_p99_s)} ms",
        columns=(
            "devices",
            "replicas",
            "heads/s asked",
            "heads/s possible",
            "p50, ms",
            "p99, ms",
            "p99 without queue, ms",
            "MiB/s up, mean / peak",
            "MiB/s down, mean / peak",
        ),
        rows=tuple(
            row(
                f"{plan.num_devices:,}",
                f"{plan.replicas:,}",
                wording.significant(plan.heads_per_s),
                wording.significant(plan.max_heads_per_s),
                wording.milliseconds(plan.p50_s),
                wording.milliseconds(plan.p99_s),
                wording.milliseconds(plan.least_p99_s),
                _both(plan.bandwidth.uplink_mean_mib_per_s, plan.bandwidth.uplink_peak_mib_per_s),
                _both(plan.bandwidth.downlink_mean_mib_per_s, plan.bandwidth.downlink_peak_mib_per_s),
            )
            for plan in plans
        ),
        footnotes=(
            "p50 and p99: from the arrival of a sample to its answer. Peak: the busiest second. Repeated "
            "bytes count again.",
        ),
    )


def _both(mean: float, peak: float) -> str:
    return f"{wording.significant(mean)} / {wording.significant(peak)}"


def replicas_curve(plans: Sequence[CapacityPlan]) -> str:
    """Plot replicas against devices."""

    def draw(axes: Axes) -> None:
        axes.plot(
            [plan.num_devices for plan in plans], [plan.replicas for plan in plans], "o-", color=PERSONALIZED
        )
        axes.set(xlabel="active devices", ylabel="replicas", ylim=(0, None), xlim=(0, None))

    return svg("capacity", "Replicas by number of devices", draw)


def write_capacity_report(folder: Path, plans: Sequence[CapacityPlan], *, sentences: Sequence[str]) -> Path:
    """Write page, Markdown and CSV into `folder` and return the page.

    Args:
        folder: output folder; created if missing.
        plans: plans in order of devices.
        sentences: assumptions of the plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = capacity_table(plans)
    text = "\n\n".join([to_markdown(table), *sentences]) + "\n"
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    with (folder / FIGURES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["devices", "replicas", "p50_s", "p99_s", "heads_per_s", "max_heads_per_s"])
        for plan in plans:
            writer.writerow(
                [
                    plan.num_devices,
                    plan.replicas,
                    plan.p50_s,
                    plan.p99_s,
                    plan.heads_per_s,
                    plan.max_heads_per_s,
                ]
            )
    return write_page(
        folder / PAGE,
        title=table.title,
        kind="capacity plan",
        headline=table.title,
        sentences=sentences,
        tables=[table],
        plots=[(replicas_curve(plans), "Smallest number of replicas that meets the target.")],
    )
