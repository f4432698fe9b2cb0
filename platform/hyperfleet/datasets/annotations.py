"""Questions and answers in the files of MSRVTT-QA, in both forms they circulate in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfleet.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class QAExample:
    """One question about one video. `video_id` names the file without its ending, e.g. "video12"."""

    id: int
    video_id: str
    question: str
    answer: str
    category_id: int | None = None


def read_msrvtt_qa(path: Path) -> tuple[QAExample, ...]:
    """Read an annotation file of MSRVTT-QA.

    Two forms are understood: the original (one JSON list; integer `video_id`, `id`) and the one of
    ClipBERT and All-in-One (a JSON object a line; string `video_id`, no id: the line number counts).

    Raises:
        DataError: no such file, no JSON, a record with a field missing or of a wrong type, or an id
            that occurs twice.
    """
    if not path.is_file():
        raise DataError(
            f"no annotation file at {path}; FleetQA is made with `hyperfleet data render`, MSRVTT-QA has "
            "train_qa.json, val_qa.json and test_qa.json"
        )
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        records = _parse(path, text, "the file")
        where = [f"record {index}" for index in range(len(records))]
    else:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        records = [_parse(path, line, f"line {number}") for number, line in lines]
        where = [f"line {number}" for number, _ in lines]
    examples = tuple(
        _to_example(path, place, index, record)
        for index, (place, record) in enumerate(zip(where, records, strict=True))
    )
    _check_ids(path, examples)
    return examples


def write_msrvtt_qa(path: Path, examples: Iterable[QAExample]) -> None:
    """Write examples in the original form of MSRVTT-QA.

    Raises:
        DataError: a video id that is not "video" and a number.
    """
    records = [
        {
            "answer": example.answer,
            "category_id": example.category_id,
            "id": example.id,
            "question": example.question,
            "video_id": _video_number(path, example.video_id),
        }
        for example in examples
    ]
    path.write_text(json.dumps(records), encoding="utf-8")


def _parse(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: {place} is no JSON: {error}; expected a list of records, or one record a line"
        ) from error


def _to_example(path: Path, place: str, index: int, record: Any) -> QAExample:
    if not isinstance(record, dict):
        raise DataError(
            f"{path}: {place} must be an object with question, answer and video_id, got {record!r:.80}"
        )
    for name in ("question", "answer"):
        if not isinstance(record.get(name), str):
            raise DataError(f"{path}: {place}: {name!r} must be a string, got {record.get(name)!r:.80}")
    video_id = record.get("video_id")
    if isinstance(video_id, int) and not isinstance(video_id, bool):
        video_id = f"video{video_id}"
    if not isinstance(video_id, str) or not video_id:
        raise DataError(
            f"{path}: {place}: 'video_id' must be a number or a name such as 'video12', got {video_id!r:.80}"
        )
    example_id = record.get("id", index)
    category_id = record.get("category_id")
    for name, value in (("id", example_id), ("category_id", category_id)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise DataError(f"{path}: {place}: {name!r} must be an integer, got {value!r:.80}")
    return QAExample(
        id=example_id,
        video_id=video_id,
        question=record["question"],
        answer=record["answer"],
        category_id=category_id,
    )


def _check_ids(path: Path, examples: tuple[QAExample, ...]) -> None:
    first_use: set[int] = set()
    for example in examples:
        if example.id in first_use:
            raise DataError(f"{path}: id {example.id} occurs twice; ids must be unique within a file")
        first_use.add(example.id)


def _video_number(path: Path, video_id: str) -> int:
    digits = video_id.removeprefix("video")
    if not digits.isdecimal():
        raise DataError(
            f"{path}: MSRVTT-QA numbers its videos; expected an id such as 'video12', got {video_id!r}"
        )
    return int(digits)
