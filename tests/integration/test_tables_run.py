"""`hyperfleet tables` on real Ray: cells of all three tasks, kept once they are finished."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.errors import CheckpointError
from hyperfleet.papers.experiments import plan
from hyperfleet.papers.experiments.cell import read_cells, read_hits
from hyperfleet.papers.tables.page import CELLS
from pipelines import tables as command
from pipelines.tables import CELLS_DIR, TablesConfig, tables

pytestmark = pytest.mark.integration

SCALE = FleetQAConfig(num_seen_devices=8, num_held_out_devices=2, history_clips=2, live_clips=1)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TablesConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "with_traits", lambda *_: SCALE)
    monkeypatch.setattr(plan, "WITH_DUET", ("fine_tuning", "cdc_mmpg"))
    monkeypatch.setattr(plan, "MAIN", ("fine_tuning", "stable_synth_net"))
    monkeypatch.setattr(plan, "_ablations", lambda *_: iter(()))
    return TablesConfig(train="smoke", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def test_cells_are_trained_once_and_every_table_is_written(small: TablesConfig) -> None:
    page = tables(small, Console(quiet=True))
    folder = page.parent
    cells = read_cells(folder / CELLS_DIR)
    assert {(cell.spec.train.task, cell.spec.train.method) for cell in cells} == {
        ("open-ended-qa", "fine_tuning"),
        ("open-ended-qa", "cdc_mmpg"),
        ("multiple-choice", "fine_tuning"),
        ("multiple-choice", "stable_synth_net"),
        ("retrieval", "fine_tuning"),
        ("retrieval", "stable_synth_net"),
    }
    for cell in cells:
        hits = read_hits(folder / CELLS_DIR / cell.spec.key)
        for name, value in cell.measures.items():
            assert value == pytest.approx(hits.right[name].mean())
        assert cell.run_id in page.read_text()
    # Twelve tables of the papers, and each number leads to its runs.
    text = page.read_text()
    assert text.count('<figure class="table" id="table-cdc-mmpg-table-') == 6
    assert text.count('<figure class="table" id="table-stablesynthnet-table-') == 6
    assert 'href="#run-fleetqa-retrieval-fine-tuning"' in text
    assert 'id="run-fleetqa-retrieval-fine-tuning"' in text
    assert (folder / CELLS).read_text().count("\n") == 1 + 2 + 2 + 2 * 6

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    tables(small, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == before


def test_cells_of_other_settings_are_refused(small: TablesConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(small, tasks=("retrieval",))
    tables(small, Console(quiet=True))
    size = plan.PRESETS["smoke"]
    changed = dataclasses.replace(size, train=dataclasses.replace(size.train, batch_size=8))
    monkeypatch.setitem(plan.PRESETS, "smoke", changed)
    with pytest.raises(CheckpointError, match="batch_size"):
        tables(small, Console(quiet=True))
