"""Files of MSRVTT-MC: choose the caption that describes a clip among five."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfleet.datasets.records import (
    convert,
    fields,
    integer_field,
    number_of,
    read_json_records,
    refuse_duplicates,
    text_field,
)
from hyperfleet.errors import DataError

NUM_CANDIDATES = 5
UNKNOWN_CATEGORY = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceExample:
    """Five candidates for one video; `answer` is the index of the true one, 0 to 4.

    `question` is "" in MSRVTT-MC, which has none. `category` is the cluster of the true caption, -1 if
    unknown.
    """

    id: int
    video_id: str
    options: tuple[str, ...]
    answer: int
    title: str = ""
    question: str = ""
    category: int = UNKNOWN_CATEGORY


def read_msrvtt_mc(path: Path) -> tuple[ChoiceExample, ...]:
    """Read a file of MSRVTT-MC.

    Two forms are accepted: `msrvtt_mc_test.jsonl` (one object per line: `qid`, `clip_name`, `title`, `answer`
    as a string, `options`) and the JSON list of VindLU and MMAction2 (`video` with suffix, `caption`,
    `answer` as a number; the index in the list is the id).

    Raises:
        DataError: the file is missing or not JSON, a field is missing or of a wrong type, there are not five
            candidates, the answer is outside them, or an id occurs twice.
    """
    if not path.is_file():
        raise DataError(
            f"no multiple-choice file at {path}; make FleetQA with `hyperfleet data render`, or convert "
            "msrvtt_mc_test.jsonl of MSRVTT-MC with `hyperfleet data prepare`"
        )
    examples = convert(path, read_json_records(path), _to_example)
    refuse_duplicates(path, "qid", (f"mc{example.id}" for example in examples))
    return examples


def write_msrvtt_mc(path: Path, examples: Iterable[ChoiceExample]) -> None:
    """Write examples in the form of msrvtt_mc_test.jsonl; question and category only if known."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            record: dict[str, Any] = {
                "qid": f"mc{example.id}",
                "clip_name": example.video_id,
                "title": example.title,
                "answer": str(example.answer),
                "options": list(example.options),
            }
            if example.question:
                record["question"] = example.question
            if example.category != UNKNOWN_CATEGORY:
                record["caption_category"] = example.category
            file.write(json.dumps(record) + "\n")


def _to_example(index: int, value: Any) -> ChoiceExample:
    record = fields(value)
    if "caption" in record:
        video_id, options = Path(text_field(record, "video")).stem, record["caption"]
        answer, number = integer_field(record, "answer"), index
    else:
        video_id, options = text_field(record, "clip_name"), record.get("options")
        digits = record.get("answer")
        if not isinstance(digits, str) or not digits.isdecimal():
            raise ValueError(f"'answer' must be a string such as \"0\", got {digits!r:.80}")
        answer, number = int(digits), number_of("mc", text_field(record, "qid"))
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"the candidates must be a list of strings, got {options!r:.80}")
    if len(options) != NUM_CANDIDATES:
        raise ValueError(f"expected {NUM_CANDIDATES} candidates, got {len(options)}")
    if not 0 <= answer < NUM_CANDIDATES:
        raise ValueError(f"the answer must be in 0..{NUM_CANDIDATES - 1}, got {answer}")
    return ChoiceExample(
        id=number,
        video_id=video_id,
        options=tuple(options),
        answer=answer,
        title=str(record.get("title", "")),
        question=str(record.get("question", "")),
        category=integer_field(record, "caption_category", UNKNOWN_CATEGORY),
    )
