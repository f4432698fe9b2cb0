"""The two tables of a run and their columns: what happened, and what each sample came to.

`events`: one row an event, in order of time. `answers`: one row a sample that a device answered, in the
order in which they were answered. Neither holds an answer key: scorers join it by `example_id`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

# What can happen; the position is what the timeline writes.
KINDS = (
    "sample",
    "sent",
    "received",
    "refused",
    "generated",
    "delivered",
    "corrupt",
    "lost",
    "timeout",
    "retry",
    "gave-up",
    "answered",
    "battery-empty",
    "fault-begins",
    "fault-ends",
)
(
    SAMPLE,
    SENT,
    RECEIVED,
    REFUSED,
    GENERATED,
    DELIVERED,
    CORRUPT,
    LOST,
    TIMEOUT,
    RETRY,
    GAVE_UP,
    ANSWERED,
    BATTERY_EMPTY,
    FAULT_BEGINS,
    FAULT_ENDS,
) = range(len(KINDS))

# With which head a sample was answered.
HEADS = ("fresh", "cached", "static")
FRESH, CACHED, STATIC = range(len(HEADS))

_NAME = pa.dictionary(pa.int16(), pa.string())
Columns = tuple[tuple[str, pa.DataType, str], ...]

EVENT_COLUMNS: Columns = (
    ("time_s", pa.float64(), "when, in seconds since the run began"),
    ("kind", pa.dictionary(pa.int8(), pa.string()), "what: " + ", ".join(KINDS)),
    ("device_id", pa.int64(), "the device; -1 for what concerns all"),
    ("sample", pa.int32(), "which sample of the device's stream, from 0; -1 for none"),
    ("attempt", pa.int16(), "which request for that sample's head, from 1; 0 before the first"),
    ("num_bytes", pa.int64(), "bytes that crossed the link for it, those sent again included"),
    ("duration_s", pa.float64(), "seconds that what ends here took: encoding, uplink, waiting, ..."),
    ("joules", pa.float64(), "energy that the device used for it; computing stands in the row of the answer"),
    ("detail", _NAME, "why, or which; '' where the kind says all"),
)

ANSWER_COLUMNS: Columns = (
    ("device_id", pa.int64(), "the device"),
    ("sample", pa.int32(), "which sample of its stream, from 0"),
    ("example_id", pa.int64(), "the question, as numbered in the annotation file"),
    ("row", pa.int64(), "row of the feature table"),
    ("network", _NAME, "name of the device's network"),
    ("profile", _NAME, "name of the device's profile"),
    ("sampled_s", pa.float64(), "when the sample arrived, in seconds since the run began"),
    ("answered_s", pa.float64(), "when it was answered"),
    ("device_clock_s", pa.float64(), "what the device's own clock showed then"),
    ("head", pa.dictionary(pa.int8(), pa.string()), "what answered it: " + ", ".join(HEADS)),
    ("head_row", pa.int64(), "row whose anchor feature the head was made from; -1 for the static head"),
    ("head_age_s", pa.float64(), "how old the head was; 0 for a fresh one, -1 for the static one"),
    ("attempts", pa.int16(), "requests sent for it"),
    ("uplink_bytes", pa.int64(), "bytes sent for it, those sent again included"),
    ("downlink_bytes", pa.int64(), "bytes received for it, those sent again included"),
    ("encode_s", pa.float64(), "seconds until its features were there"),
    ("uplink_s", pa.float64(), "seconds its last request was on the way"),
    ("queue_s", pa.float64(), "seconds it waited at the generator, and between tries"),
    ("generate_s", pa.float64(), "seconds of computing the batch that its head was in"),
    ("downlink_s", pa.float64(), "seconds its head was on the way"),
    ("apply_s", pa.float64(), "seconds of applying the head"),
    ("joules", pa.float64(), "energy that the device used for it, radio and computing"),
    ("compute_joules", pa.float64(), "of these, computing alone"),
    ("fallback", _NAME, "why it has no fresh head though one was asked for; '' otherwise"),
    ("base_answer", pa.int32(), "answer of the personal model's static head"),
    ("static_answer", pa.int32(), "answer of the Fine-tuning model"),
    ("answer", pa.int32(), "answer given"),
    ("score", pa.float32(), "score of that answer"),
)


def _schema(columns: Columns, content: str) -> pa.Schema:
    fields = [
        pa.field(name, kind, nullable=False, metadata={"description": text}) for name, kind, text in columns
    ]
    return pa.schema(fields, metadata={"content": content, "version": "2"})


EVENT_SCHEMA = _schema(EVENT_COLUMNS, "HyperFleet scenario events, one row an event")
ANSWER_SCHEMA = _schema(ANSWER_COLUMNS, "HyperFleet scenario answers, one row a sample that was answered")


def _dictionary(codes: pa.Array, values: Sequence[str], index_type: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.cast(index_type), pa.array(values, pa.string()))


def _names(values: Sequence[str], field: pa.Field) -> pa.Array:
    return pa.array(values, pa.string()).dictionary_encode().cast(field.type)


def events_table(rows: Sequence[tuple[float, int, int, int, int, int, float, float, str]]) -> pa.Table:
    """Return rows in the order of `EVENT_COLUMNS`, kinds as numbers, as a table."""
    if not rows:
        return EVENT_SCHEMA.empty_table()
    columns = list(zip(*rows, strict=True))
    arrays = []
    for field, values in zip(EVENT_SCHEMA, columns, strict=True):
        if field.name == "kind":
            arrays.append(_dictionary(pa.array(values, pa.int8()), KINDS, pa.int8()))
        elif pa.types.is_dictionary(field.type):
            arrays.append(_names(values, field))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def answers_table(columns: Mapping[str, Any]) -> pa.Table:
    """Return whole columns by name as a table; `head` as numbers, names as texts."""
    arrays = []
    for field in ANSWER_SCHEMA:
        values = columns[field.name]
        if field.name == "head":
            arrays.append(_dictionary(pa.array(values, pa.int8()), HEADS, pa.int8()))
        elif pa.types.is_dictionary(field.type):
            arrays.append(_names(values, field))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=ANSWER_SCHEMA)
