"""Description of a data set: its sizes, and the accuracy that the questions alone allow."""

from rich.console import Console
from rich.table import Table

from hyperfleet.datasets import Corpus
from hyperfleet.datasets.annotations import read_msrvtt_qa
from hyperfleet.datasets.corpus import SPLITS, questions_file
from hyperfleet.datasets.question_baseline import question_only_accuracy
from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.nn.encoder_config import tiny
from pipelines.commands.data import DescribeConfig


def describe(config: DescribeConfig, console: Console) -> None:
    """Print the description."""
    corpus = Corpus.open(config.data)
    table = Table(
        "task", "split", "samples", "clips", "devices", "out of vocabulary", "skipped", title=str(config.data)
    )
    for task in corpus.tasks:
        for name in SPLITS:
            split = corpus.split(name, tiny().text_length, task)
            table.add_row(
                task,
                name,
                f"{len(split):,}",
                f"{len(set(split.clip_row.tolist())):,}",
                f"{len(split.device_ids):,}",
                f"{split.oov_share:.1%}" if task == OPEN_ENDED_QA else "-",
                f"{split.num_skipped:,}",
            )
    console.print(table)
    for video, reason in sorted(corpus.store.skipped.items())[:10]:
        console.print(f"skipped {video}: {reason}")
    if corpus.vocabulary is not None:
        train, test = (read_msrvtt_qa(config.data / questions_file(name)) for name in ("train", "test"))
        console.print(f"answers: {len(corpus.vocabulary.answers)}; classes: {corpus.vocabulary.num_classes}")
        console.print(f"accuracy from the question alone: {question_only_accuracy(train, test):.1%}")
