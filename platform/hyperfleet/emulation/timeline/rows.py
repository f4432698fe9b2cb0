"""The two tables of a run.

`events`: one row per event, in order of time. `answers`: one row per answered sample, in the order of the
answers. Neither holds the answer key: scorers join it by `example_id`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

# Kinds of events; the timeline writes positions in this tuple.
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

# Heads that answer a sample.
HEADS = ("fresh", "cached", "static")
FRESH, CACHED, STATIC = range(len(HEADS))

_NAME = pa.dictionary(pa.int16(), pa.string())
Columns = tuple[tuple[str, pa.DataType, str], ...]

EVENT_COLUMNS: Columns = (
    ("time_s", pa.float64(), "time of the event, in seconds since the start of the run"),
    ("kind", pa.dictionary(pa.int8(), pa.string()), "kind of event: " + ", ".join(KINDS)),
    ("device_id", pa.int64(), "the device; -1 for events that concern all devices"),
    ("sample", pa.int32(), "position of the sample in the device's stream, from 0; -1 for none"),
    ("attempt", pa.int16(), "number of the request for the sample's head, from 1; 0 before the first"),
    ("num_bytes", pa.int64(), "bytes that crossed the link, retransmissions included"),
    ("duration_s", pa.float64(), "seconds of the step that ends here: encoding, uplink, waiting, ..."),
    ("joules", pa.float64(), "energy used by the device; computing is counted in the row of the answer"),
    ("detail", _NAME, "reason or object of the event; '' if the kind says it all"),
)

ANSWER_COLUMNS: Columns = (
    ("device_id", pa.int64(), "the device"),
    ("sample", pa.int32(), "position of the sample in its stream, from 0"),
    ("example_id", pa.int64(), "the question's number in the annotation file"),
    ("row", pa.int64(), "row of the feature table"),
    ("network", _NAME, "name of the device's network"),
    ("profile", _NAME, "name of the device's profile"),
    ("sampled_s", pa.float64(), "arrival of the sample, in seconds since the start of the run"),
    ("answered_s", pa.float64(), "time of the answer"),
    ("device_clock_s", pa.float64(), "the device's own clock at that time"),
    ("head", pa.dictionary(pa.int8(), pa.string()), "head that answered it: " + ", ".join(HEADS)),
    ("head_row", pa.int64(), "row of the anchor feature that generated the head; -1 for the static head"),
    ("head_age_s", pa.float64(), "age of the head; 0 for a fresh one, -1 for the static one"),
    ("attempts", pa.int16(), "requests sent for it"),
    ("uplink_bytes", pa.int64(), "bytes sent for it, retransmissions included"),
    ("downlink_bytes", pa.int64(), "bytes received for it, retransmissions included"),
    ("encode_s", pa.float64(), "seconds of computing its features, waiting for the device included"),
    ("uplink_s", pa.float64(), "seconds of its last request on the uplink"),
    ("queue_s", pa.float64(), "seconds of waiting at the generator and between tries"),
    ("generate_s", pa.float64(), "seconds of computing the batch with its head"),
    ("downlink_s", pa.float64(), "seconds of its head on the downlink"),
    ("apply_s", pa.float64(), "seconds of applying the head"),
    ("joules", pa.float64(), "energy used by the device, radio and computing"),
    ("compute_joules", pa.float64(), "the part of it used by computing"),
    ("fallback", _NAME, "why it has no fresh head though it asked for one; '' otherwise"),
    ("base_answer", pa.int32(), "answer of the personal model's static head"),
    ("static_answer", pa.int32(), "answer of the Fine-tuning model"),
    ("answer", pa.int32(), "the device's answer"),
    ("score", pa.float32(), "score of that answer"),
)


def _schema(columns: Columns, content: str) -> pa.Schema:
    fields = [
        pa.field(name, kind, nullable=False, metadata={"description": text}) for name, kind, text in columns
    ]
    return pa.schema(fields, metadata={"content": content, "version": "2"})


EVENT_SCHEMA = _schema(EVENT_COLUMNS, "HyperFleet scenario events, one row per event")
ANSWER_SCHEMA = _schema(ANSWER_COLUMNS, "HyperFleet scenario answers, one row per answered sample")


def _dictionary(codes: pa.Array, values: Sequence[str], index_type: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.cast(index_type), pa.array(values, pa.string()))


def _names(values: Sequence[str], field: pa.Field) -> pa.Array:
    return pa.array(values, pa.string()).dictionary_encode().cast(field.type)


def events_table(rows: Sequence[tuple[float, int, int, int, int, int, float, float, str]]) -> pa.Table:
    """Return a table of rows in the order of `EVENT_COLUMNS`, with kinds as numbers."""
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
    """Return a table of columns by name, with `head` as numbers and names as strings."""
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
