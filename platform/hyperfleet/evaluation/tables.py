"""The tables of a run: accuracy, cost beside the papers' printed cells, and latency.

Each builder takes a score and the facts of a run and returns a finished `rendering.Table`.
"""

from hyperfleet.evaluation import published, wording
from hyperfleet.evaluation.facts import RunFacts
from hyperfleet.evaluation.latency import ALL_NETWORKS, PARTS, TOTAL, LatencySplit
from hyperfleet.evaluation.metrics import FleetScore, GroupScore
from hyperfleet.evaluation.paired import PairedDifference
from hyperfleet.evaluation.rendering import Cell, Table, row
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import HeadLayout


def demo_tables(score: FleetScore, facts: RunFacts) -> tuple[Table, Table, Table]:
    """Build the three tables of a demo run: accuracy, cost, latency."""
    return accuracy_table(score), cost_table(facts), latency_table(score, facts)


def accuracy_table(score: FleetScore) -> Table:
    """Static against personalized head on the same live samples, with interval and p-value."""
    group = score.overall
    rows = [
        _accuracy_row("All devices, mean", "device_mean", group, strong=True),
        _accuracy_row("All devices, 10th percentile", "device_p10", group),
    ]
    for name, part in (("Seen devices", score.seen), ("Held-out devices", score.held_out)):
        if part is not None:
            rows.append(_accuracy_row(f"{name}, mean", "device_mean", part))
            rows.append(_accuracy_row(f"{name}, 10th percentile", "device_p10", part))
    rows.append(_accuracy_row("All samples", "sample", group))
    rows.append(_accuracy_row("Samples in vocabulary (All-in-One's count)", "in_vocabulary", group))
    num_unknown = group.num_samples - group.num_in_vocabulary
    footnotes = [
        "Interval: 95% percentile bootstrap over devices. p: Wilcoxon signed-rank over devices in rows of "
        "means; exact McNemar in rows of samples, which takes the samples of a device as independent; none "
        "for percentiles.",
        f"{num_unknown:,} of {group.num_samples:,} samples have an answer outside the vocabulary; they count "
        "as wrong except in the last row, which leaves them out.",
    ]
    if score.num_fallbacks:
        footnotes.append(
            f"{score.num_fallbacks:,} samples without a personalized head were answered by the static head "
            "of the same model; they count as personalized."
        )
    return Table(
        name="accuracy",
        title="Accuracy on the devices' live samples",
        columns=("", "n", "Static", "Personalized", "Difference (points)", "95% interval", "p"),
        rows=tuple(rows),
        footnotes=tuple(footnotes),
    )


def cost_table(facts: RunFacts) -> Table:
    """Parameters, payload and transfer time of this implementation beside the papers' printed values."""
    datasets = tuple(published.NUM_CLASSES)
    classes = [*published.NUM_CLASSES.values(), facts.num_classes]
    own_generator = facts.cloud_params - facts.front_params
    sizes = [HeadLayout(num_classes=c).num_bytes for c in classes[:-1]] + [facts.head_bytes]

    def cited(name: str, field: str, texts: list[str]) -> list[Cell]:
        cells = [getattr(published.method(published.CDC_MMPG, data, name), field) for data in datasets]
        return [Cell(text=t, printed=p) for t, p in zip(texts, [*cells, ""], strict=True)]

    generators = [published.generator_params(c) for c in classes[:-1]]
    device = [f"{published.device_params(c):,}" for c in classes[:-1]] + [f"{facts.device_params:,}"]
    hyper = [f"{count:,}" for count in generators] + [f"{own_generator:,}"]
    whole = [f"{count + facts.front_params:,}" for count in generators] + [f"{facts.cloud_params:,}"]
    up = [Cell(text=wording.kib(facts.feature_bytes), printed=published.UPLOAD_KIB) for _ in datasets]
    down = [
        Cell(text=wording.kib(n), printed=published.DOWNLOAD_KIB[data])
        for n, data in zip(sizes, datasets, strict=False)
    ]
    rows = [
        row("Classes C", *(f"{c:,}" for c in classes)),
        row("D-Param: on the device", *cited("Ours", "device_params", device)),
        row("C-Param: generating layer alone (F-hyper)", *cited("F-hyper", "cloud_params", hyper)),
        row(f"C-Param: {facts.method}", *cited("Ours", "cloud_params", whole), strong=True),
        row("Upload, KiB", *up, wording.kib(facts.feature_bytes)),
        row("Download, KiB", *down, wording.kib(facts.head_bytes)),
        *_delay_rows("Upload", "up", [facts.feature_bytes] * len(classes)),
        *_delay_rows("Download", "down", sizes),
    ]
    return Table(
        name="cost",
        title="Cost of a personalized head (in parentheses: as the papers print it)",
        columns=("", *datasets, f"This run ({facts.encoder_preset})"),
        rows=tuple(rows),
        footnotes=(
            "Columns of the papers' data sets: All-in-One-Ti and this run's generator, at their number of "
            "classes. Printed: parameters in CDC-MMPG Tables 1 and 2, sizes and delays in StableSynthNet "
            "Table 5.",
            "What fills the printed C-Param of the full method cannot be told from the paper; ours is the "
            "network that this run used.",
            published.TGIF_NOTE,
            published.DOWNLOAD_ONLY_NOTE,
            published.SIZE_NOTE,
            published.CDC_DELAY_TABLE_NOTE,
        ),
    )


def latency_table(score: FleetScore, facts: RunFacts) -> Table:
    """Measured end-to-end personalization latency, p50 / p99, by part and network."""
    return Table(
        name="latency",
        title="Personalization latency in ms, p50 / p99",
        columns=("Network", "Heads", *(part.capitalize() for part in PARTS), "Total"),
        rows=tuple(_latency_row(split) for split in score.latency),
        footnotes=(
            facts.link_note,
            "Quantiles of the parts do not add up to the total's. Requests without a head are left out.",
        ),
    )


def steps_table(facts: RunFacts) -> Table:
    """Wall time and peak memory of each step."""
    rows = [
        row(
            step.name,
            wording.duration(step.wall_s),
            wording.NOTHING if step.peak_memory_bytes is None else wording.mib(step.peak_memory_bytes),
            step.note,
        )
        for step in facts.steps
    ]
    total_s = sum(step.wall_s for step in facts.steps)
    peaks = [step.peak_memory_bytes for step in facts.steps if step.peak_memory_bytes is not None]
    peak = wording.mib(max(peaks)) if peaks else wording.NOTHING
    rows.append(row("All steps", wording.duration(total_s), peak, "", strong=True))
    return Table(
        name="steps",
        title="Wall time and peak memory by step",
        columns=("Step", "Wall time", "Peak memory, MiB", ""),
        rows=tuple(rows),
    )


def _accuracy_row(name: str, measure: str, group: GroupScore, *, strong: bool = False) -> tuple[Cell, ...]:
    number = {"sample": group.num_samples, "in_vocabulary": group.num_in_vocabulary}
    test: PairedDifference | None = getattr(group, measure)
    return row(
        name,
        f"{number.get(measure, group.num_devices):,}",
        wording.percent(getattr(group.static, measure)),
        wording.percent(getattr(group.personalized, measure)),
        wording.points(test.difference if test else None),
        wording.interval_points(test.interval if test else None),
        wording.p_value(test.p_value if test else None),
        strong=strong,
    )


def _delay_rows(name: str, direction: str, sizes: list[int]) -> list[tuple[Cell, ...]]:
    """One row a network: the delay of each size, beside what StableSynthNet prints for the papers' sets."""
    rows = []
    for network in PAPER_NETWORKS.values():
        wanted = (published.STABLE_SYNTH_NET, direction, network)
        printed = [
            delay.printed_ms or ""
            for delay in published.DELAYS
            if (delay.paper, delay.direction, delay.network) == wanted
        ]
        cells = [
            Cell(text=_delay(published.delay_ms(network, direction, size)), printed=text)
            for size, text in zip(sizes, [*printed, ""], strict=True)
        ]
        rows.append(row(f"{name} at {network.label}, ms", *cells))
    return rows


def _delay(delay_ms: float) -> str:
    """One digit more than the papers print, so that their rounding can be followed."""
    return f"{delay_ms:.4f}" if delay_ms < 1 else f"{delay_ms:.3f}"


def _latency_row(split: LatencySplit) -> tuple[Cell, ...]:
    cells = []
    for part in (*PARTS, TOTAL):
        quantiles = split.parts[part]
        cells.append(f"{wording.milliseconds(quantiles.p50_s)} / {wording.milliseconds(quantiles.p99_s)}")
    overall = split.network == ALL_NETWORKS
    return row(wording.network(split.network), f"{split.num_requests:,}", *cells, strong=overall)
