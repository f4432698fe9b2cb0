"""Tables that the papers lack: all methods with paired tests, seeds, modules, costs, and the runs."""

import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.paired import (
    CONFIDENCE_LEVEL,
    Interval,
    PairedDifference,
    holm,
    holm_corrected,
    wilcoxon_p_value,
)
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
    "interval by bootstrap over devices; p of Wilcoxon's signed-rank test and of the mean under random "
    "signs, both corrected by Holm over the methods of the table. They hold for these trained models; "
    "\u00b1 is the standard deviation over seeds."
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
    names = methods_of(task)
    measures = ("accuracy",) if task != RETRIEVAL else published.RETRIEVAL_COLUMNS
    differences = _differences(measured, task, names)
    rows = []
    for name in names:
        cells = measured.of(FLEETQA, task, name)
        rows.append(
            row(
                name,
                *(measured.cell(cells, measure(each), percent_spread) for each in measures),
                *([_in_vocabulary(measured, cells)] if task == OPEN_ENDED_QA else []),
                *differences[name],
                str(len(cells)) if cells else MISSING,
            )
        )
    tail = ("Difference", "95% interval", *wording.P_COLUMNS, "Seeds")
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


def methods_of(task: str) -> tuple[str, ...]:
    """Return the methods of the table of a task."""
    return WITH_DUET if task == OPEN_ENDED_QA else MAIN


def corrected_tests(
    measured: Measured, task: str, names: Sequence[str]
) -> dict[str, PairedDifference | None]:
    """Compare each method with Fine-tuning, p-values corrected over all of them; None without both."""
    base = measured.of(FLEETQA, task, BASE)
    cells = [measured.of(FLEETQA, task, name) if name != BASE else [] for name in names]
    tests = holm_corrected([measured.paired(base, each) if base and each else None for each in cells])
    return dict(zip(names, tests, strict=True))


def _differences(measured: Measured, task: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return difference, interval and corrected p-values of each method as texts."""
    return {
        name: [MISSING] * 4
        if test is None
        else [
            wording.points(test.difference),
            wording.interval_points(test.interval),
            *wording.p_values(test),
        ]
        for name, test in corrected_tests(measured, task, names).items()
    }


def seed_tables(measured: Measured) -> tuple[Table, ...]:
    """Difference to Fine-tuning by seed, with tests over seeds; none with fewer than two common seeds."""
    base = {cell.spec.train.seed: cell for cell in measured.of(FLEETQA, OPEN_ENDED_QA, BASE)}
    by_method: dict[str, dict[int, float]] = {}
    for name in (*WITH_DUET, *AS_PRINTED):
        differences = {
            cell.spec.train.seed: cell.measures["accuracy"] - base[cell.spec.train.seed].measures["accuracy"]
            for cell in measured.of(FLEETQA, OPEN_ENDED_QA, name)
            if cell.spec.train.seed in base
        }
        if name != BASE and len(differences) >= 2:
            by_method[name] = differences
    if not by_method:
        return ()
    values = {name: np.array(list(each.values())) for name, each in by_method.items()}
    students = [_student(each) for each in values.values()]
    t_tests = holm([p_value for _, p_value in students])
    rank_tests = holm([wilcoxon_p_value(each) for each in values.values()])
    rows = [
        row(
            name,
            ", ".join(f"{seed}: {wording.points(each)}" for seed, each in differences.items()),
            wording.points(float(values[name].mean())),
            f"{100 * statistics.stdev(values[name]):.1f}",
            wording.interval_points(interval),
            wording.p_value(t_test),
            wording.p_value(rank_test),
            f"{(values[name] > 0).sum()} of {len(values[name])}",
        )
        for (name, differences), (interval, _), t_test, rank_test in zip(
            by_method.items(), students, t_tests, rank_tests, strict=True
        )
    ]
    most = max(map(len, values.values()))
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
                "Accuracy over samples; interval and t-test (Student) are paired over seeds, p-values are "
                f"corrected by Holm over the methods. With {most} seeds Wilcoxon's two-sided p cannot fall "
                f"below {2.0 ** (1 - most):.3g} before the correction, and the t-test ({most - 1} degrees of "
                f"freedom) assumes normal differences, which {most} values cannot show.",
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
    first = ("cdc_mmpg", *MODULES[:4], *HEAD_FORMS, AS_PRINTED[0])
    names = (BASE, "f_hyper_trained", *first, "stable_synth_net", *MODULES[4:], AS_PRINTED[1])
    differences = _differences(measured, OPEN_ENDED_QA, names)
    rows = []
    for name in names:
        cells = measured.of(FLEETQA, OPEN_ENDED_QA, name)
        size = modules.download_bytes(published.MSRVTT_QA, name)
        rows.append(
            row(
                name,
                measured.cell(cells, accuracy, percent_spread),
                *differences[name],
                MISSING if size is None else wording.kib(size),
                str(len(cells)) if cells else MISSING,
            )
        )
    return Table(
        name="modules",
        title="Modules, literal readings and cheaper heads on FleetQA, open-ended question answering",
        columns=(
            "Method",
            "Accuracy",
            "Difference",
            "95% interval",
            *wording.P_COLUMNS,
            "KiB per head, C = 1,501",
            "Seeds",
        ),
        rows=tuple(rows),
        footnotes=(
            PAIRED_NOTE + " Over the common seeds of both methods.",
            "The papers ablate by their baselines (F-linear, Fine-tuning, F-hyper) and print no table of "
            "modules. _fda: f_p and f_h on the raw anchor; _fda_clip: on F_g, the upper bound of the ADR; "
            "_adr: the reasoner before f_h alone; _rank8 and _film: cheaper heads; _joint: equation 18, one "
            "loss of answers and ADR moves everything; _as_printed: every equation taken literally.",
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
