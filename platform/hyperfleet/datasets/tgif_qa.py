"""Files of FrameQA in TGIF-QA: the original table, and the form of ClipBERT and All-in-One."""

from pathlib import Path
from typing import Any

from hyperfleet.datasets.annotations import QAExample
from hyperfleet.datasets.records import convert, fields, read_csv_records, read_json_records, text_field

# Indexed by the numbers in the column `type`.
ANSWER_TYPES = ("object", "number", "color", "location")


def read_frameqa(path: Path) -> tuple[QAExample, ...]:
    """Read Train_frameqa_question.csv (tab-separated) or frameqa_train.jsonl, depending on the suffix.

    Neither has question ids: the index in the file is the id. `category_id` is the type of the answer, if
    known.

    Raises:
        DataError: the file or a column is missing, a row is truncated, or a field has a wrong type.
    """
    if path.suffix == ".csv":
        columns = ("gif_name", "question", "answer", "type")
        return convert(path, read_csv_records(path, columns, delimiter="\t"), _from_row)
    return convert(path, read_json_records(path), _from_object)


def _from_row(index: int, row: Any) -> QAExample:
    answer_type = text_field(row, "type")
    if answer_type not in {str(number) for number in range(len(ANSWER_TYPES))}:
        raise ValueError(f"'type' must be 0 to {len(ANSWER_TYPES) - 1}, got {answer_type!r:.80}")
    return _to_example(index, row, int(answer_type))


def _from_object(index: int, value: Any) -> QAExample:
    answer_type = fields(value).get("answer_type")
    return _to_example(index, value, ANSWER_TYPES.index(answer_type) if answer_type in ANSWER_TYPES else None)


def _to_example(index: int, value: Any, category_id: int | None) -> QAExample:
    return QAExample(
        id=index,
        video_id=text_field(value, "gif_name"),
        question=text_field(value, "question"),
        answer=text_field(value, "answer"),
        category_id=category_id,
    )
