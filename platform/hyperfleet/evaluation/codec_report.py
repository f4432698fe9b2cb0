"""Table, plot and page of accuracy against bytes per head codec."""

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.codec_accuracy import NO_HEAD, CodecResult, reference
from hyperfleet.evaluation.paired import mcnemar_p_value
from hyperfleet.evaluation.rendering import Table, row, to_markdown, write_page
from hyperfleet.evaluation.svg import INK, PERSONALIZED, STATIC, svg
from hyperfleet.head_codecs import CODECS
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import HeadLayout

PAGE, MARKDOWN, FIGURES = "codecs.html", "codecs.md", "codecs.csv"
# The papers' head for MSRVTT-QA: 1,501 answers.
PAPER_LAYOUT = HeadLayout(num_classes=1501)
_NETWORK = PAPER_NETWORKS["4g-5"]


def codec_table(results: Sequence[CodecResult], *, title: str) -> Table:
    """Build the table; differences are to the exact codec on the same samples, with McNemar's test."""
    exact = reference(results)
    rows = []
    for result in results:
        gained = int((result.correct & ~exact.correct).sum())
        lost = int((exact.correct & ~result.correct).sum())
        same = result is exact
        paper_bytes = CODECS[result.codec].num_bytes(PAPER_LAYOUT) if result.codec in CODECS else 0
        rows.append(
            row(
                result.codec,
                f"{result.head_bytes:,}",
                f"{exact.head_bytes / result.head_bytes:.1f}" if result.head_bytes else "",
                wording.percent(result.correct.mean()),
                "" if same else wording.points((gained - lost) / len(exact.correct)),
                "" if same else wording.p_value(mcnemar_p_value(gained, lost)),
                f"{result.relative_error:.2g}",
                wording.kib(paper_bytes) if paper_bytes else "",
                wording.milliseconds(_NETWORK.downlink_s(paper_bytes)) if paper_bytes else "",
                strong=same,
            )
        )
    return Table(
        name="codecs",
        title=title,
        columns=(
            "codec",
            "bytes",
            "fp32 / it",
            "accuracy",
            "- fp32",
            "p",
            "error",
            "KiB*",
            "ms*",
        ),
        rows=tuple(rows),
        footnotes=(
            f"{len(exact.correct):,} live samples, the same for all rows; - fp32: difference in points; p: "
            "McNemar's exact test; error: mean over heads of |decoded - generated| / |generated - static|; "
            "at 1 the generated part is lost.",
            f"* size of the papers' head of {PAPER_LAYOUT.num_classes:,} answers, and its download time at "
            f"{_NETWORK.label}. Bytes are those of a head's tensors; the header of a reply adds up to "
            f"{max(each.reply_bytes - each.head_bytes for each in results)} bytes.",
        ),
    )


def codec_curve(results: Sequence[CodecResult]) -> str:
    """Plot accuracy against bytes per head; the static head, which sends none, is a line."""
    sent = sorted((each for each in results if each.codec != NO_HEAD), key=lambda each: each.head_bytes)
    static = next((each for each in results if each.codec == NO_HEAD), None)

    def draw(axes: Axes) -> None:
        sizes = [each.head_bytes for each in sent]
        values = [100 * float(each.correct.mean()) for each in sent]
        axes.plot(sizes, values, "o", color=PERSONALIZED)
        # Codecs of one size share a label, best first: separate labels would overlap.
        for size in dict.fromkeys(sizes):
            same = sorted(
                (
                    (value, each.codec)
                    for each, value in zip(sent, values, strict=True)
                    if each.head_bytes == size
                ),
                reverse=True,
            )
            names = ", ".join(name for _, name in same)
            axes.annotate(names, (size, same[0][0]), xytext=(3, 4), textcoords="offset points", fontsize=7)
        if static is not None:
            accuracy = 100 * float(static.correct.mean())
            axes.axhline(accuracy, color=STATIC, linestyle="--", label="static head, nothing sent")
            axes.legend(loc="lower right")
        axes.axvline(max(sizes) / 10, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="bytes per head", ylabel="accuracy (%)")
        axes.margins(0.12)

    return svg("codecs", "Accuracy on live samples against bytes per head", draw)


def write_codec_report(results: Sequence[CodecResult], folder: Path, *, title: str) -> Path:
    """Write page, Markdown and CSV into `folder` and return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    table = codec_table(results, title=title)
    (folder / MARKDOWN).write_text(to_markdown(table), encoding="utf-8")
    with (folder / FIGURES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["codec", "head_bytes", "reply_bytes", "accuracy", "samples", "relative_error"])
        for each in results:
            accuracy = float(each.correct.mean())
            writer.writerow(
                [
                    each.codec,
                    each.head_bytes,
                    each.reply_bytes,
                    accuracy,
                    len(each.correct),
                    each.relative_error,
                ]
            )
    return write_page(
        folder / PAGE,
        title=title,
        kind="head codecs",
        headline=title,
        tables=[table],
        plots=[(codec_curve(results), "The dotted line is at a tenth of the float32 bytes.")],
    )
