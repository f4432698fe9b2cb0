"""Tables that the papers lack: all methods with paired tests, seeds, modules, costs, and the runs."""

import statistics

import numpy as np
from scipy import stats

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.paired import CONFIDENCE_LEVEL, Interval, wilcoxon_p_value
from hyperfleet.evaluation.rendering import Cell, Table, row
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cell import CellResult
from hyperfleet.papers.experiments.plan import AS_PRINTED, FLEETQA, HEAD_FORMS, MAIN, MODULES, WITH_DUET
from hyperfleet.papers.tables import modules
from hyperfleet.papers.tables.measured import MISSING, Measured, milliseconds, percent_spread
from hyperfleet.papers.tables.of_papers import accuracy, measure
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL

BASE = "fine_tuning"
_TITLES = {
    OPEN_ENDED_QA: "open-ended question answering",
    MULTIPLE_CHOICE: "multiple choice",
    RETRIEVAL: "video-text retrieval",
}
_TASK_NOTES = {
    OPEN_ENDED_QA: (
        "An answer outside the vocabulary counts as wrong; All-in-One's count leaves such samples out.",
    ),
    RETRIEVAL: ("The difference is of the mean of the six recalls.",),
}
PAIRED_NOTE = (
    "Difference to Fine-tuning on the same live samples, in points: seeds averaged, devices paired; 95% "
    "interval by bootstrap over devices, p of Wilcoxon's signed-rank test. They hold for these trained "
    "models; \u00b1 is the standard deviation over seeds."
)


def own_tables(measured: Measured) -> tuple[Table, ...]:
    """Build the tables that the papers lack; the last one lists the runs."""
    return (
        *(methods_on_fleetqa(measured, task) for task in (OPEN_ENDED_QA, MULTIPLE_CHOICE, RETRIEVAL)),
        *seed_tables(measured),
        module_table(measured),
        cost_table(measured),
        start_table(measured),
        runs_table(measured),
    )


def methods_on_fleetqa(measured: Measured, task: str) -> Table:
    """All methods on the rendered data set, with the paired test against Fine-tuning."""
    names = WITH_DUET if task == OPEN_ENDED_QA else MAIN
    measures = ("accuracy",) if task != RETRIEVAL else published.RETRIEVAL_COLUMNS
    base = measured.of(FLEETQA, task, BASE)
    rows = []
    for name in names:
        cells = measured.of(FLEETQA, task, name)
        rows.append(
            row(
                name,
                *(measured.cell(cells, measure(each), percent_spread) for each in measures),
                *([_in_vocabulary(measured, cells)] if task == OPEN_ENDED_QA else []),
                *_difference(measured, base, cells),
                str(len(cells)) if cells else MISSING,
            )
        )
    tail = ("Difference", "95% interval", "p", "Seeds")
    return Table(
        name=f"fleetqa-{task}",
        title=f"All methods on FleetQA, {_TITLES[task]}",
        columns=(
            "Method",
            *(each.capitalize() if each == "accuracy" else each for each in measures),
            *(["All-in-One's count"] if task == OPEN_ENDED_QA else []),
            *tail,
        ),
        rows=tuple(rows),
        footnotes=(PAIRED_NOTE, *_TASK_NOTES.get(task, ())),
    )


def _in_vocabulary(measured: Measured, cells: list[CellResult]) -> Cell:
    return measured.cell(cells, lambda cell: cell.in_vocabulary, percent_spread)


def _difference(measured: Measured, base: list[CellResult], cells: list[CellResult]) -> list[str]:
    if not base or not cells or base is cells:
        return [MISSING] * 3
    test = measured.paired(base, cells)
    if test is None:
        return [MISSING] * 3
    return [
        wording.points(test.difference),
        wording.interval_points(test.interval),
        wording.p_value(test.p_value),
    ]


def seed_tables(measured: Measured) -> tuple[Table, ...]:
    """Difference to Fine-tuning by seed, with tests over seeds; none with fewer than two common seeds."""
    base = {cell.spec.train.seed: cell for cell in measured.of(FLEETQA, OPEN_ENDED_QA, BASE)}
    rows, numbers = [], set()
    for name in (*WITH_DUET, *AS_PRINTED):
        differences = {
            cell.spec.train.seed: cell.measures["accuracy"] - base[cell.spec.train.seed].measures["accuracy"]
            for cell in measured.of(FLEETQA, OPEN_ENDED_QA, name)
            if cell.spec.train.seed in base
        }
        if name == BASE or len(differences) < 2:
            continue
        values = np.array(list(differences.values()))
        interval, p_value = _student(values)
        numbers.add(len(values))
        rows.append(
            row(
                name,
                ", ".join(f"{seed}: {wording.points(each)}" for seed, each in differences.items()),
                wording.points(float(values.mean())),
                f"{100 * statistics.stdev(values):.1f}",
                wording.interval_points(interval),
                wording.p_value(p_value),
                wording.p_value(wilcoxon_p_value(values)),
                f"{(values > 0).sum()} of {len(values)}",
            )
        )
    if not rows:
        return ()
    most = max(numbers)
    return (
        Table(
            name="seeds",
            title="Difference to Fine-tuning by seed on FleetQA, open-ended question answering (points)",
            columns=(
                "Method",
                "By seed",
                "Mean",
                "SD",
                "95% interval",
                "p, t-test",
                "p, Wilcoxon",
                "Better in",
            ),
            rows=tuple(rows),
            footnotes=(
                "Accuracy over samples; interval and t-test (Student) are paired over seeds. With "
                f"{most} seeds Wilcoxon's two-sided p cannot fall below {2.0 ** (1 - most):.3g}, and the "
                f"t-test ({most - 1} degrees of freedom) assumes normal differences, which {most} values "
                "cannot show.",
            ),
        ),
    )


def _student(differences: np.ndarray) -> tuple[Interval | None, float | None]:
    """Return interval and p-value of the paired t-test; None if all differences agree: t is undefined."""
    if np.ptp(differences) <= 1e-12:
        return None, None
    result = stats.ttest_1samp(differences, 0.0)
    ends = result.confidence_interval(CONFIDENCE_LEVEL)
    return Interval(low=float(ends.low), high=float(ends.high)), float(result.pvalue)


def module_table(measured: Measured) -> Table:
    """Ablation of modules, literal readings and cheaper heads."""
    first = ("cdc_mmpg", *MODULES[:3], *HEAD_FORMS, AS_PRINTED[0])
    names = (BASE, "f_hyper_trained", *first, "stable_synth_net", *MODULES[3:], AS_PRINTED[1])
    base = measured.of(FLEETQA, OPEN_ENDED_QA, BASE)
    rows = []
    for name in names:
        cells = measured.of(FLEETQA, OPEN_ENDED_QA, name)
        size = modules.download_bytes(published.MSRVTT_QA, name)
        rows.append(
            row(
                name,
                measured.cell(cells, accuracy, percent_spread),
                *_difference(measured, base, cells),
                MISSING if size is None else wording.kib(size),
                str(len(cells)) if cells else MISSING,
            )
        )
    return Table(
        name="modules",
        title="Modules, literal readings and cheaper heads on FleetQA, open-ended question answering",
        columns=("Method", "Accuracy", "Difference", "95% interval", "p", "KiB per head, C = 1,501", "Seeds"),
        rows=tuple(rows),
        footnotes=(
            PAIRED_NOTE + " Over the common seeds of both methods.",
            "The papers ablate by their baselines (F-linear, Fine-tuning, F-hyper) and print no table of "
            "modules. _fda: f_p and f_h on the raw anchor; _adr: the reasoner before f_h alone; _rank8 and "
            "_film: cheaper heads; _joint: generated heads train the encoder; _as_printed: every equation "
            "taken literally.",
        ),
    )


def cost_table(measured: Measured) -> Table:
    """Cost of a head of each method at MSRVTT-QA's size, and its time on this machine."""
    rows = []
    for name in (*WITH_DUET, *HEAD_FORMS):
        cells = measured.of(FLEETQA, OPEN_ENDED_QA, name)
        cloud = modules.cloud_params(published.MSRVTT_QA, name)
        macs = modules.generator_macs(published.MSRVTT_QA, name)
        size = modules.download_bytes(published.MSRVTT_QA, name)
        upload = modules.upload_bytes(name)
        rows.append(
            row(
                name,
                wording.millions(modules.device_params(published.MSRVTT_QA)),
                "/" if cloud is None else wording.millions(cloud),
                *(["/", "/"] if macs is None else [wording.millions(count) for count in macs]),
                wording.kib(upload) if upload else MISSING,
                MISSING if size is None else wording.kib(size),
                measured.cell(cells, lambda cell: cell.cost.generate_s or None, milliseconds),
                measured.cell(cells, lambda cell: cell.cost.apply_s or None, milliseconds),
                measured.cell(cells, lambda cell: cell.train_s, _minutes),
            )
        )
    return Table(
        name="cost",
        title="Cost of a head",
        columns=(
            "Method",
            "D-Param",
            "C-Param",
            "MACs before f_h",
            "MACs of f_h",
            "Upload, KiB",
            "Download, KiB",
            "Generate",
            "Apply",
            "Training",
        ),
        rows=tuple(rows),
        footnotes=(
            "Parameters, multiply-accumulates and download: counted in the modules with All-in-One-Ti and "
            "C = 1,501. Times and training (after the shared warm stage): on FleetQA, one thread.",
        ),
    )


def _minutes(values: list[float]) -> str:
    return wording.duration(sum(values) / len(values))


def start_table(measured: Measured) -> Table:
    """Spread of the scores and loss before each method's own training."""
    rows = []
    for name in (*WITH_DUET, *AS_PRINTED):
        cells = measured.of(FLEETQA, OPEN_ENDED_QA, name)
        rows.append(
            row(
                name,
                measured.cell(cells, lambda cell: cell.start_logit_std, _plain),
                measured.cell(cells, lambda cell: cell.start_loss, _plain),
            )
        )
    return Table(
        name="start",
        title="Before the first step: spread of the scores and loss on FleetQA",
        columns=("Method", "Standard deviation of the scores", "Loss"),
        rows=tuple(rows),
        footnotes=("After the shared warm stage, if a method has one. A guessing head has loss ln(C).",),
    )


def _plain(values: list[float]) -> str:
    return wording.significant(sum(values) / len(values))


def runs_table(measured: Measured) -> Table:
    """Runs behind every number: seeds, measures and MLflow run ids."""
    rows = []
    for group, cells in measured.groups.items():
        frames = f", {group.num_frames} frames" if group.num_frames else ""
        said = "; ".join(
            f"seed {cell.spec.train.seed}: "
            + ", ".join(f"{name} {100 * value:.1f}" for name, value in cell.measures.items())
            for cell in cells
        )
        rows.append(
            (
                Cell(text=f"{group.dataset}, {group.task}, {group.method}{frames}", anchor=group.anchor),
                Cell(text=said),
                Cell(text=", ".join(cell.run_id for cell in cells)),
                Cell(text=", ".join(sorted({cell.weights_origin for cell in cells}))),
            )
        )
    return Table(
        name="runs",
        title="Runs",
        columns=("Cell", "Measured, %", "MLflow runs", "First weights"),
        rows=tuple(rows),
    )
