"""Logs of made-up fleet runs: every column has a plain default, and tests set the columns that matter."""

import numpy as np
import pyarrow as pa

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, answers_table, events_table
from hyperfleet.evaluation.answer_key import AnswerKey

DEFAULTS: dict[str, object] = {
    "sample": 0,
    "row": 0,
    "network": "4g-5",
    "profile": "phone",
    "device_clock_s": 0.0,
    "head": rows.FRESH,
    "head_row": 0,
    "head_age_s": 0.0,
    "attempts": 1,
    "uplink_bytes": 768,
    "downlink_bytes": 20_000,
    "encode_s": 0.01,
    "uplink_s": 0.02,
    "queue_s": 0.03,
    "generate_s": 0.015,
    "downlink_s": 0.02,
    "apply_s": 0.005,
    "joules": 1.0,
    "compute_joules": 0.5,
    "fallback": "",
    "base_answer": 0,
    "static_answer": 0,
    "answer": 0,
    "score": 1.0,
    "sampled_s": 0.0,
}


def answers(**columns: object) -> pa.Table:
    """Build answers; a scalar fills its column, and a sample takes 0.1 s unless `answered_s` is given."""
    length = max(np.size(value) for value in columns.values())
    filled = {**DEFAULTS, "device_id": 0, "example_id": np.arange(length), **columns}
    if "sample" not in columns:
        filled["sample"] = np.arange(length)
    full = {name: np.broadcast_to(np.asarray(value), length).tolist() for name, value in filled.items()}
    full.setdefault("answered_s", [each + 0.1 for each in full["sampled_s"]])
    return answers_table({name: full[name] for name in ANSWER_SCHEMA.names})


def answer_key(
    device_id: list[int] | np.ndarray,
    *,
    example_id: list[int] | np.ndarray | None = None,
    label: list[int] | np.ndarray | None = None,
    held_out: tuple[int, ...] = (),
) -> AnswerKey:
    """Build a key from the device of each example; by default ids count from 0 and labels are 1."""
    n = len(device_id)
    return AnswerKey(
        example_id=np.arange(n) if example_id is None else np.asarray(example_id),
        label=np.ones(n, int) if label is None else np.asarray(label),
        device_id=np.asarray(device_id),
        held_out=np.isin(device_id, held_out),
    )


def events(*given: tuple[float, int, dict[str, object]]) -> pa.Table:
    """Build events of (time_s, kind, other columns)."""
    return events_table(
        [
            (
                time_s,
                kind,
                columns.get("device_id", -1),
                columns.get("sample", -1),
                columns.get("attempt", 0),
                columns.get("num_bytes", 0),
                columns.get("duration_s", 0.0),
                columns.get("joules", 0.0),
                columns.get("detail", ""),
            )
            for time_s, kind, columns in given
        ]
    )
