"""Annotation files of MSRVTT-QA, in both forms in circulation."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfleet.datasets.records import (
    convert,
    fields,
    integer_field,
    read_json_records,
    refuse_duplicates,
    text_field,
)
from hyperfleet.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class QAExample:
    """One question about one video. `video_id` is the file name without suffix, e.g. "video12"."""

    id: int
    video_id: str
    question: str
    answer: str
    category_id: int | None = None


def read_msrvtt_qa(path: Path) -> tuple[QAExample, ...]:
    """Read an annotation file of MSRVTT-QA, or of MSVD-QA, which has the same fields.

    Two forms are accepted: the original (one JSON list; integer `video_id`, `id`) and that of ClipBERT and
    All-in-One (one JSON object per line; string `video_id`; the line number is the id).

    Raises:
        DataError: the file is missing or not JSON, a field is missing or of a wrong type, or an id occurs
            twice.
    """
    if not path.is_file():
        raise DataError(
            f"no annotation file at {path}; FleetQA is made with `hyperfleet data render`, MSRVTT-QA has "
            "train_qa.json, val_qa.json and test_qa.json"
        )
    examples = convert(path, read_json_records(path), _to_example)
    refuse_duplicates(path, "id", (example.id for example in examples))
    return examples


def write_msrvtt_qa(path: Path, examples: Iterable[QAExample]) -> None:
    """Write examples in the original form of MSRVTT-QA; videos without a number keep their name."""
    records = [
        {
            "answer": example.answer,
            "category_id": example.category_id,
            "id": example.id,
            "question": example.question,
            "video_id": _number_or_name(example.video_id),
        }
        for example in examples
    ]
    path.write_text(json.dumps(records), encoding="utf-8")


def _to_example(index: int, value: Any) -> QAExample:
    question, answer = text_field(value, "question"), text_field(value, "answer")
    video_id = fields(value).get("video_id")
    if isinstance(video_id, int) and not isinstance(video_id, bool):
        video_id = f"video{video_id}"
    if not isinstance(video_id, str) or not video_id:
        raise ValueError(f"'video_id' must be a number or a name such as 'video12', got {video_id!r:.80}")
    return QAExample(
        id=integer_field(value, "id", index),
        video_id=video_id,
        question=question,
        answer=answer,
        category_id=None if value.get("category_id") is None else integer_field(value, "category_id"),
    )


def _number_or_name(video_id: str) -> int | str:
    digits = video_id.removeprefix("video")
    # A number with leading zeros would be read back as another name.
    return int(digits) if digits.isdecimal() and f"video{int(digits)}" == video_id else video_id
