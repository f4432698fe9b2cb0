"""Readers of annotation files, with errors that name the file and the place."""

import csv
import io
import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hyperfleet.errors import DataError

Example = TypeVar("Example")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file; `place`, such as "line 3" or "record 2", is used in messages."""

    place: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Oddity of a data set that does not prevent its use: description, count and first case."""

    file: str
    what: str
    count: int
    first: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.count:,} {self.what}" + (
            f", the first: {self.first}" if self.first else ""
        )


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without byte order mark.

    Raises:
        DataError: the file is missing, cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected a text file in UTF-8") from error


def read_json(path: Path) -> Any:
    """Read a file with one JSON value.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    return _parse(path, read_text(path), "the file")


def read_json_records(path: Path) -> list[Record]:
    """Read a JSON list of records, or one JSON record per line.

    Raises:
        DataError: the file cannot be read or is not JSON; the message names the line.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        return to_records("record", _parse(path, text, "the file"))
    return [
        Record(f"line {number}", _parse(path, line, f"line {number}"))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def to_records(kind: str, values: Iterable[Any]) -> list[Record]:
    """Turn the values of a list into records named "`kind` 0", "`kind` 1" and so on."""
    return [Record(f"{kind} {index}", value) for index, value in enumerate(values)]


def read_csv_records(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[Record]:
    """Read the rows of a file with a header as dictionaries; it must have `columns`.

    Raises:
        DataError: the file cannot be read, columns are missing, or a row and the header differ in length.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    header = next(rows, [])
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(columns)} separated by "
            f"{delimiter!r}, got {header!r:.120}"
        )
    records = [Record(f"line {rows.line_num}", row) for row in rows if row]

    def to_row(_: int, row: Any) -> dict[str, str]:
        if len(row) != len(header):
            raise ValueError(f"has {len(row)} cells, expected {len(header)} ({', '.join(header)})")
        return dict(zip(header, row, strict=True))

    converted = convert(path, records, to_row)
    return [Record(record.place, row) for record, row in zip(records, converted, strict=True)]


def convert(
    path: Path, records: Sequence[Record], to_example: Callable[[int, Any], Example]
) -> tuple[Example, ...]:
    """Apply `to_example(index, value)`, which raises ValueError for a broken record, to all records.

    Raises:
        DataError: records are broken; the message counts them and names the first.
    """
    examples: list[Example] = []
    broken: list[str] = []
    for index, record in enumerate(records):
        try:
            examples.append(to_example(index, record.value))
        except ValueError as error:
            broken.append(f"{record.place}: {error}")
    if broken:
        count = f" ({len(broken)} of {len(records)} records are broken)" if len(records) > 1 else ""
        raise DataError(f"{path}: {broken[0]}{count}")
    return tuple(examples)


def refuse_duplicates(path: Path, kind: str, keys: Iterable[Hashable]) -> None:
    """Refuse a file with a duplicate key; `kind` names the key in the message.

    Raises:
        DataError: a key occurs twice; the message counts them and names the first.
    """
    known: set[Hashable] = set()
    twice = []
    for key in keys:
        if key in known:
            twice.append(key)
        known.add(key)
    if twice:
        raise DataError(
            f"{path}: {kind} {twice[0]} occurs twice; expected it once per file ({len(twice)} records "
            "repeat one)"
        )


def text_field(value: Any, name: str) -> str:
    """Return a field that must be a string.

    Raises:
        ValueError: `value` is not a dictionary, or the field is missing or not a string.
    """
    field = fields(value).get(name)
    if not isinstance(field, str):
        raise ValueError(f"{name!r} must be a string, got {field!r:.80}")
    return field


def integer_field(value: Any, name: str, default: int | None = None) -> int:
    """Return a field that must be an integer, or `default` if it is missing.

    Raises:
        ValueError: `value` is not a dictionary, or the field is not an integer or missing without default.
    """
    field = fields(value).get(name, default)
    if not isinstance(field, int) or isinstance(field, bool):
        raise ValueError(f"{name!r} must be an integer, got {field!r:.80}")
    return field


def number_of(prefix: str, name: str) -> int:
    """Return the number in a name such as "mc12" or "ret3".

    Raises:
        ValueError: the name has another form.
    """
    digits = name.removeprefix(prefix)
    if digits == name or not digits.isdecimal():
        raise ValueError(f"expected a name such as '{prefix}12', got {name!r:.80}")
    return int(digits)


def fields(value: Any) -> dict[str, Any]:
    """Return a record that must be a dictionary.

    Raises:
        ValueError: it is not a dictionary.
    """
    if not isinstance(value, dict):
        raise ValueError(f"must be an object with named fields, got {value!r:.80}")
    return value


def _parse(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: {place} is not JSON: {error}; expected a list of records, or one record per line"
        ) from error
