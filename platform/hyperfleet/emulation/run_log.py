"""Log of a run: a folder that grows during the run and that a later run can resume.

    scenario.json                the scenario, the models and the data
    events/part-00000.parquet    one row per event (`timeline.rows.EVENT_SCHEMA`)
    answers/part-00000.parquet   one row per answered sample (`ANSWER_SCHEMA`)

Parts with equal numbers belong to the same stretch. Pandas, Polars and DuckDB read each folder as one table.
"""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, EVENT_SCHEMA
from hyperfleet.errors import ConfigError, DataError
from hyperfleet.scenario.definition import Scenario

SCENARIO_FILE = "scenario.json"
# The log of the removed fleet without scenarios.
_OLD_LOG_FILE = "events.parquet"
EVENTS_DIR, ANSWERS_DIR = "events", "answers"
_SCHEMAS = {EVENTS_DIR: EVENT_SCHEMA, ANSWERS_DIR: ANSWER_SCHEMA}
_PARTIAL = ".partial"
SCORE_TOLERANCE = 1e-5


class RunLog:
    """Log of a run; create it with `begin` or `open`."""

    def __init__(self, folder: Path, scenario: Scenario, origin: dict[str, str]) -> None:
        self.folder = folder
        self.scenario = scenario
        self.origin = origin

    @classmethod
    def begin(cls, folder: Path, scenario: Scenario, origin: dict[str, str]) -> "RunLog":
        """Start a log in `folder`; `origin` identifies models and data.

        Raises:
            DataError: the folder already holds a log, or cannot be written.
        """
        if (folder / SCENARIO_FILE).exists():
            raise DataError(
                f"{folder} already holds the log of a run; resume it (--resume), choose another output or "
                "delete it"
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
            DataError: the folder holds no log, a damaged one, or one of an earlier version.
        """
        path = folder / SCENARIO_FILE
        if (folder / _OLD_LOG_FILE).exists() and not path.exists():
            raise DataError(
                f"{folder} holds a log of an earlier version ({_OLD_LOG_FILE}, without a scenario), expected "
                f"{SCENARIO_FILE}; run `hyperfleet fleet` again with another output"
            )
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            scenario = Scenario.from_json(json.dumps(fields["scenario"]))
            log = cls(folder, scenario, dict(fields["origin"]))
        except ConfigError as error:
            raise DataError(f"{path}: {error}; run `hyperfleet fleet` again with another output") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} holds no log of a run: {path.name}: {error!r}; expected an output folder of "
                "`hyperfleet fleet`"
            ) from error
        log._check_columns()
        return log

    def _check_columns(self) -> None:
        """Refuse columns of another version: a resumed run would overwrite them part by part."""
        for name, schema in _SCHEMAS.items():
            names = _column_names(self._part(name, 0))
            if names is not None and names != schema.names:
                changed = ", ".join(sorted(set(names) ^ set(schema.names))) or "their order"
                raise DataError(
                    f"{self.folder}/{name} has the columns of another version (difference: {changed}); "
                    "run `hyperfleet fleet` again with another output"
                )

    def check_same(self, scenario: Scenario, origin: dict[str, str]) -> None:
        """Check that a run can resume this log.

        Raises:
            DataError: scenario, models or data differ from those of the log.
        """
        before, now = self.scenario.digest_fields, scenario.digest_fields
        changed = [name for name in now if before[name] != now[name]]
        changed += [name for name in origin if self.origin.get(name) != origin[name]]
        if changed:
            raise DataError(
                f"{self.folder} was run with other {', '.join(changed)}; resume it with the same values or "
                "choose another output"
            )

    def num_parts(self) -> int:
        """Return the number of complete stretches before the first incomplete one."""
        number = 0
        while all(_column_names(self._part(name, number)) == _SCHEMAS[name].names for name in _SCHEMAS):
            number += 1
        return number

    def write(self, number: int, events: pa.Table, answers: pa.Table) -> None:
        """Write one stretch; it is complete when both files exist.

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
        """Return all events, in order of time.

        Raises:
            DataError: a part is damaged.
        """
        return self._read(EVENTS_DIR)

    def answers(self) -> pa.Table:
        """Return all answered samples, in the order of their answers.

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
    """Return the tables and columns in which two logs differ; scores may differ by `SCORE_TOLERANCE`."""
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
                # Equal names may have different codes in the two dictionaries.
                same = left[column].cast(pa.string()).equals(right[column].cast(pa.string()))
            else:
                same = left[column].equals(right[column])
            if not same:
                found.append(f"{name}: column {column}")
    return found


def _column_names(path: Path) -> list[str] | None:
    """Return the columns of a complete file (the footer is written last), None for any other."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid):
        return None


def _cannot_write(folder: Path, error: OSError) -> DataError:
    remedy = "free some space" if error.errno == errno.ENOSPC else "check the folder"
    return DataError(
        f"the log in {folder} cannot be written: {error}; the parts written so far are kept: {remedy} and "
        "run the same command with --resume"
    )
