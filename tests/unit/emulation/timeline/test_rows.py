from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.records import AnsweredSample
from hyperfleet.emulation.timeline.rows import (
    ANSWER_COLUMNS,
    ANSWER_SCHEMA,
    EVENT_COLUMNS,
    EVENT_SCHEMA,
    HEADS,
    KINDS,
    answers_table,
    events_table,
)
from hyperfleet.scenario.definition import Scenario

FINITE = st.floats(0, 1e6, allow_subnormal=False)
EVENT_ROWS = st.lists(
    st.tuples(
        FINITE,
        st.integers(0, len(KINDS) - 1),
        st.integers(-1, 2**40),
        st.integers(-1, 2**31 - 1),
        st.integers(0, 100),
        st.integers(0, 2**40),
        FINITE,
        FINITE,
        st.sampled_from(["", "HTTP 429", "replica died", "checksum"]),
    ),
    max_size=20,
)


def events(first_s: float, details: list[str]) -> pa.Table:
    return events_table(
        [
            (first_s + index, index % len(KINDS), index, index, 1, 768, 0.25, 0.5, detail)
            for index, detail in enumerate(details)
        ]
    )


def answers(number: int, networks: list[str]) -> pa.Table:
    columns: dict[str, object] = {}
    for field in ANSWER_SCHEMA:
        if field.name == "head":
            columns[field.name] = [index % len(HEADS) for index in range(len(networks))]
        elif field.name == "network":
            columns[field.name] = networks
        elif pa.types.is_dictionary(field.type):
            columns[field.name] = [f"{field.name} {number}"] * len(networks)
        else:
            columns[field.name] = np.full(len(networks), number)
    return answers_table(columns)


@pytest.mark.parametrize(
    ("schema", "columns"),
    [(EVENT_SCHEMA, EVENT_COLUMNS), (ANSWER_SCHEMA, ANSWER_COLUMNS)],
    ids=["events", "answers"],
)
def test_a_file_describes_its_own_columns(tmp_path: Path, schema: pa.Schema, columns: rows.Columns) -> None:
    pq.write_table(schema.empty_table(), tmp_path / "part.parquet")
    written = pq.read_schema(tmp_path / "part.parquet")
    assert written.names == [name for name, _, _ in columns]
    assert written.types == [kind for _, kind, _ in columns]
    for field, (_, _, description) in zip(written, columns, strict=True):
        assert field.metadata[b"description"].decode() == description
        assert len(description) > 5
        assert not field.nullable
    assert written.metadata[b"version"] == b"2"
    assert len(set(written.names)) == len(written.names)


def test_a_unit_stands_in_the_name_of_what_has_one() -> None:
    for name, kind, description in (*EVENT_COLUMNS, *ANSWER_COLUMNS):
        if kind == pa.float64():
            assert name.endswith("_s") or name.endswith("joules"), name
        if "bytes" in name:
            assert kind == pa.int64(), name
        if name.endswith("_s"):
            assert kind == pa.float64(), name
            assert description


def test_every_code_has_its_name() -> None:
    named = {name: getattr(rows, name.upper().replace("-", "_")) for name in (*KINDS, *HEADS)}
    assert [KINDS[named[name]] for name in KINDS] == list(KINDS)
    assert [HEADS[named[name]] for name in HEADS] == list(HEADS)
    described = dict(
        zip((name for name, _, _ in EVENT_COLUMNS), (text for _, _, text in EVENT_COLUMNS), strict=True)
    )
    assert all(kind in described["kind"] for kind in KINDS)
    # What the timeline knows of an answer goes into a column of its own name, ids instead of positions.
    renamed = {"device": "device_id", "number": "sample"}
    assert {renamed.get(name, name) for name in AnsweredSample._fields} <= set(ANSWER_SCHEMA.names)


@settings(max_examples=50, deadline=None)
@given(drawn=EVENT_ROWS)
def test_events_are_what_was_put_in(drawn: list[tuple]) -> None:
    table = events_table(drawn)
    assert table.schema.equals(EVENT_SCHEMA, check_metadata=True)
    table.validate(full=True)
    expected = [(*row[:1], KINDS[row[1]], *row[2:]) for row in drawn]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected


def test_answers_are_what_was_put_in() -> None:
    table = answers(3, ["4g-5", "5g-50", "4g-5", "4g-5"])
    assert table.schema.equals(ANSWER_SCHEMA, check_metadata=True)
    table.validate(full=True)
    assert table["head"].to_pylist() == ["fresh", "cached", "static", "fresh"]
    assert table["network"].to_pylist() == ["4g-5", "5g-50", "4g-5", "4g-5"]
    assert table["answer"].to_pylist() == [3] * 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    """A log whose parts have other names in other orders, as those of a run have."""
    log = RunLog.begin(tmp_path_factory.mktemp("rows") / "log", Scenario(name="rows"), {})
    log.write(0, events(0.0, ["", "HTTP 429"]), answers(0, ["4g-5", "5g-50"]))
    log.write(1, events(10.0, ["checksum", "", "HTTP 429"]), answers(1, ["5g-50", "lte_walk", "4g-5"]))
    log.write(2, EVENT_SCHEMA.empty_table(), ANSWER_SCHEMA.empty_table())
    log.write(3, events(20.0, ["HTTP 503"]), answers(2, ["lte_walk"]))
    return log


def assert_same(log: RunLog, read: dict[str, dict[str, list]]) -> None:
    for name, table in (("events", log.events()), ("answers", log.answers())):
        assert list(read[name]) == table.column_names
        for column in table.column_names:
            values = [str(value) if isinstance(value, str) else value for value in read[name][column]]
            assert values == table[column].to_pylist(), column
    assert read["events"]["detail"] == ["", "HTTP 429", "checksum", "", "HTTP 429", "HTTP 503"]


def test_pandas_reads_a_folder_as_one_table(log: RunLog) -> None:
    pandas = pytest.importorskip("pandas")
    assert_same(
        log, {name: pandas.read_parquet(log.folder / name).to_dict("list") for name in ("events", "answers")}
    )


def test_polars_reads_a_folder_as_one_table(log: RunLog) -> None:
    polars = pytest.importorskip("polars")
    assert_same(
        log,
        {
            name: polars.read_parquet(log.folder / name / "*.parquet").to_dict(as_series=False)
            for name in ("events", "answers")
        },
    )


def test_duckdb_reads_a_folder_as_one_table(log: RunLog) -> None:
    duckdb = pytest.importorskip("duckdb")
    read = {
        name: duckdb.sql(f"SELECT * FROM '{log.folder}/{name}/*.parquet'").df().to_dict("list")
        for name in ("events", "answers")
    }
    assert_same(log, read)
