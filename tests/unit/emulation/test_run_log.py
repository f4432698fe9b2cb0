import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, EVENT_SCHEMA
from hyperfleet.errors import DataError
from hyperfleet.scenario.definition import Scenario

AGAIN = "run `hyperfleet fleet` again with another output"


def begin(folder: Path, events: pa.Schema = EVENT_SCHEMA) -> None:
    log = RunLog.begin(folder, Scenario(name="x"), {"generator": "1"})
    log.write(0, events.empty_table(), ANSWER_SCHEMA.empty_table())


def test_a_log_of_the_removed_fleet_is_refused_with_the_remedy(tmp_path: Path) -> None:
    content = "HyperFleet events, one row a question that a device answered"
    schema = pa.schema([pa.field("device_id", pa.int64())], metadata={"content": content, "version": "1"})
    pq.write_table(schema.empty_table(), tmp_path / "events.parquet")
    with pytest.raises(DataError, match=rf"events\.parquet, without a scenario.*{AGAIN}"):
        RunLog.open(tmp_path)
    # A file of that name beside a log is none of ours.
    begin(tmp_path)
    assert RunLog.open(tmp_path).num_parts() == 1


def test_columns_of_another_version_are_refused_not_overwritten(tmp_path: Path) -> None:
    begin(tmp_path, EVENT_SCHEMA.remove(EVENT_SCHEMA.get_field_index("attempt")))
    with pytest.raises(DataError, match=rf"events has the columns.*attempt.*{AGAIN}"):
        RunLog.open(tmp_path)


def test_a_part_that_was_cut_is_not_taken_for_another_version(tmp_path: Path) -> None:
    begin(tmp_path)
    part = tmp_path / "events" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    assert RunLog.open(tmp_path).num_parts() == 0


def test_a_scenario_of_another_shape_names_its_field_and_the_log(tmp_path: Path) -> None:
    begin(tmp_path)
    path = tmp_path / "scenario.json"
    fields = json.loads(path.read_text())
    fields["scenario"]["max_tries"] = fields["scenario"]["retry"].pop("max_tries")
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match=rf"scenario\.json.*max_tries.*belongs to RetryPolicy.*{AGAIN}"):
        RunLog.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scenario": {"name": "x"}}'])
def test_a_damaged_description_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.json").write_text(text)
    with pytest.raises(DataError, match="expected an output folder"):
        RunLog.open(tmp_path)
