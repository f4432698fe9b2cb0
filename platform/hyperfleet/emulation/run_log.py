"""The log of a scenario run: a folder that grows while it runs and that a later run can go on with.

    scenario.json            what was run, and on which models and data
    events/part-00000.parquet    one row an event (`timeline.rows.EVENT_SCHEMA`)
    answers/part-00000.parquet   one row a sample that was answered (`ANSWER_SCHEMA`)

Parts have equal numbers for the same stretch. Pandas, Polars and DuckDB read each folder as one table.
"""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, EVENT_SCHEMA
from hyperfleet.errors import DataError
from hyperfleet.scenario.definition import Scenario

SCENARIO_FILE = "scenario.json"
EVENTS_DIR, ANSWERS_DIR = "events", "answers"
_SCHEMAS = {EVENTS_DIR: EVENT_SCHEMA, ANSWERS_DIR: ANSWER_SCHEMA}
_PARTIAL = ".partial"
SCORE_TOLERANCE = 1e-5


class RunLog:
    """A run's folder; make one with `begin` or `open`."""

    def __init__(self, folder: Path, scenario: Scenario, origin: dict[str, str]) -> None:
        self.folder = folder
        self.scenario = scenario
        self.origin = origin

    @classmethod
    def begin(cls, folder: Path, scenario: Scenario, origin: dict[str, str]) -> "RunLog":
        """Start a log in `folder`; `origin` says which models and data the answers come from.

        Raises:
            DataError: the folder holds a log already, or cannot be written.
        """
        if (folder / SCENARIO_FILE).exists():
            raise DataError(
                f"{folder} holds the log of a run; go on with it (--resume), name another output or delete it"
            )
        log = cls(folder, scenario, origin)
        try:
            for name in _SCHEMAS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            text = json.dumps({"scenario": json.loads(scenario.to_json()), "origin": origin}, indent=2) + "\n"
            partial = folder / (SCENARIO_FILE + _PARTIAL)
            partial.write_text(text, encoding="utf-8")
            partial.rename(folder / SCENARIO_FILE)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return log

    @classmethod
    def open(cls, folder: Path) -> "RunLog":
        """Open the log of an earlier run.

        Raises:
            DataError: there is none, or its description is damaged.
        """
        path = folder / SCENARIO_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            scenario = Scenario.from_json(json.dumps(fields["scenario"]))
            return cls(folder, scenario, dict(fields["origin"]))
        except (OSError, UnicodeDecodeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(
                f"{folder} holds no log of a run: {path.name}: {error!r}; expected what `hyperfleet fleet "
                "--scenario` wrote"
            ) from error

    def check_same(self, scenario: Scenario, origin: dict[str, str]) -> None:
        """Make sure that going on with this log gives one run, not two halves of different ones.

        Raises:
            DataError: scenario, models or data differ from those of the log.
        """
        before, now = self.scenario.digest_fields, scenario.digest_fields
        changed = [name for name in now if before[name] != now[name]]
        changed += [name for name in origin if self.origin.get(name) != origin[name]]
        if changed:
            raise DataError(
                f"{self.folder} was run with other {', '.join(changed)}; resume it with the same, or choose "
                "another output"
            )

    def num_parts(self) -> int:
        """Return how many stretches are there whole, counted up to the first that is not."""
        number = 0
        while all(_is_whole(self._part(name, number), schema) for name, schema in _SCHEMAS.items()):
            number += 1
        return number

    def write(self, number: int, events: pa.Table, answers: pa.Table) -> None:
        """Write one stretch; it counts when both of its files are there.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        for name, table in ((EVENTS_DIR, events), (ANSWERS_DIR, answers)):
            path = self._part(name, number)
            partial = path.with_name(path.name + _PARTIAL)
            try:
                pq.write_table(table, partial, compression="zstd")
                partial.rename(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise _cannot_write(self.folder, error) from error

    def events(self) -> pa.Table:
        """Return all events so far, in order of time.

        Raises:
            DataError: a part is damaged.
        """
        return self._read(EVENTS_DIR)

    def answers(self) -> pa.Table:
        """Return all answered samples so far, in the order in which they were answered.

        Raises:
            DataError: a part is damaged.
        """
        return self._read(ANSWERS_DIR)

    def _read(self, name: str) -> pa.Table:
        schema = _SCHEMAS[name]
        parts = [self._part(name, number) for number in range(self.num_parts())]
        if not parts:
            return schema.empty_table()
        try:
            table = pa.concat_tables([pq.read_table(part) for part in parts])
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self.folder}/{name} cannot be read: {error}; resume the run") from error
        return table.unify_dictionaries().cast(schema)

    def _part(self, name: str, number: int) -> Path:
        return self.folder / name / f"part-{number:05d}.parquet"


def differences(first: RunLog, second: RunLog) -> list[str]:
    """Say where the logs of two runs differ; scores may by 1e-5 of their size, the last bits of a batch."""
    found = []
    for name, left, right in (
        (EVENTS_DIR, first.events(), second.events()),
        (ANSWERS_DIR, first.answers(), second.answers()),
    ):
        if left.num_rows != right.num_rows:
            found.append(f"{name}: {left.num_rows:,} rows and {right.num_rows:,}")
            continue
        for column in left.schema.names:
            if column == "score":
                same = np.allclose(
                    left[column].to_numpy(), right[column].to_numpy(), atol=SCORE_TOLERANCE, equal_nan=True
                )
            elif pa.types.is_dictionary(left.schema.field(column).type):
                # Equal names may stand in different orders in the two dictionaries.
                same = left[column].cast(pa.string()).equals(right[column].cast(pa.string()))
            else:
                same = left[column].equals(right[column])
            if not same:
                found.append(f"{name}: column {column}")
    return found


def _is_whole(path: Path, schema: pa.Schema) -> bool:
    # The footer is written last: a file that has one of these columns is whole.
    try:
        return bool(pq.read_schema(path).names == schema.names)
    except (OSError, pa.ArrowInvalid):
        return False


def _cannot_write(folder: Path, error: OSError) -> DataError:
    remedy = "free some space" if error.errno == errno.ENOSPC else "check the folder"
    return DataError(
        f"the log in {folder} cannot be written: {error}; what was written is kept: {remedy} and run the "
        "same command with --resume"
    )
