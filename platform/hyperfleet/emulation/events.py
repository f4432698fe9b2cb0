"""The record of a run: one row for each question that a device answered, as an Arrow table in Parquet."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hyperfleet.errors import DataError
from hyperfleet.messages import DeviceReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What a device reported, and what only the emulation knows about it."""

    report: DeviceReport
    anchor_frame: int
    base_answer: int
    num_tries: int
    asked_at_s: float
    answered_at_s: float


_UTC = pa.timestamp("us", tz="UTC")

# Name, type and meaning of every column. The first ones are the fields of DeviceReport.
_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("device_id", pa.int64(), "the device"),
    ("example_id", pa.int64(), "the question, as numbered in the annotation file"),
    ("network", pa.string(), "the device's network, e.g. '4g-5'"),
    ("model_version", pa.string(), "registered version of the generator that made the head; '' if none came"),
    ("answer", pa.int32(), "answer of the personalized head, or base_answer where none came"),
    ("static_answer", pa.int32(), "answer of the static (Fine-tuning) model to the same question"),
    ("uplink_bytes", pa.int64(), "size of the request body"),
    ("downlink_bytes", pa.int64(), "size of the reply body; 0 if no head came"),
    ("uplink_s", pa.float64(), "seconds the request takes on the network: computed of its size, not slept"),
    ("queue_s", pa.float64(), "measured seconds of waiting and HTTP: the round trip without generate_s"),
    ("generate_s", pa.float64(), "seconds of computing the head, measured by the cloud"),
    ("downlink_s", pa.float64(), "seconds the reply takes on the network: computed of its size, not slept"),
    ("apply_s", pa.float64(), "measured seconds of answering with the head"),
    ("fallback", pa.string(), "why no head was used; '' if one was"),
    ("base_answer", pa.int32(), "answer of the personalized model's own head, without the cloud"),
    ("anchor_frame", pa.int16(), "which frame of the clip was uploaded, counted from 0"),
    ("num_tries", pa.int16(), "requests sent until the head came; 0 if none came"),
    ("asked_at", _UTC, "wall clock when the device asked"),
    ("answered_at", _UTC, "wall clock when the device had answered"),
)

# Personalization latency of a row is uplink_s + queue_s + generate_s + downlink_s + apply_s.
EVENT_SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=False, metadata={"description": text}) for name, kind, text in _COLUMNS],
    metadata={"content": "HyperFleet events, one row a question that a device answered", "version": "1"},
)


def events_table(events: Sequence[Event]) -> pa.Table:
    """Return `events` as a table of `EVENT_SCHEMA`, one row each, in their order."""
    rows = [
        {
            **asdict(event.report),
            "base_answer": event.base_answer,
            "anchor_frame": event.anchor_frame,
            "num_tries": event.num_tries,
            "asked_at": round(event.asked_at_s * 1e6),
            "answered_at": round(event.answered_at_s * 1e6),
        }
        for event in events
    ]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def join_events(tables: Sequence[pa.Table]) -> pa.Table:
    """Put the tables of a run together, in the order of devices and questions.

    Raises:
        DataError: a device answered a question twice.
    """
    events = pa.concat_tables([EVENT_SCHEMA.empty_table(), *tables])
    events = events.sort_by([("device_id", "ascending"), ("example_id", "ascending")]).combine_chunks()
    keys = events.select(["device_id", "example_id"])
    num_distinct = keys.group_by(["device_id", "example_id"]).aggregate([]).num_rows
    if num_distinct != events.num_rows:
        raise DataError(
            f"{events.num_rows} events tell of {num_distinct} questions, expected one event a question; "
            "check that no device was given to two hosts"
        )
    return events


def write_events(path: Path, events: pa.Table) -> Path:
    """Write the events of a run as Parquet and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(events.cast(EVENT_SCHEMA), partial, compression="zstd")
    # Renamed when complete: a run that is stopped leaves no half table under the name of a whole one.
    partial.rename(path)
    return path


def read_events(path: Path) -> pa.Table:
    """Read what `write_events` wrote.

    Raises:
        DataError: no such file, no Parquet, or columns of another version.
    """
    try:
        events = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"no events in {path}: {error}; `hyperfleet fleet` writes them") from error
    if not events.schema.equals(EVENT_SCHEMA):
        raise DataError(
            f"{path} has columns {events.schema.names}, expected {EVENT_SCHEMA.names} of their types; "
            "run the fleet again with this version"
        )
    return events
