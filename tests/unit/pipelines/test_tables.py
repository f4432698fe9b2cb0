from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hyperfleet.datasets.fleetqa.scales import at_shift
from hyperfleet.papers.experiments.plan import FLEETQA
from pipelines import tables as command
from pipelines.commands.models import TablesConfig
from pipelines.tables import CELLS_DIR, tables


@pytest.mark.parametrize(
    ("shift", "name"), [(1.0, "smoke"), (0.0, "smoke-shift-0"), (0.5, "smoke-shift-0.5")]
)
def test_each_shift_has_its_own_data_and_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shift: float, name: str
) -> None:
    rendered: list[Any] = []
    trained: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "connect", lambda **_: None)
    monkeypatch.setattr(command, "render", lambda *args: rendered.append(args))
    monkeypatch.setattr(
        command, "_train_missing", lambda config, size, folders, output, _: trained.append((folders, output))
    )
    monkeypatch.setattr(command, "read_cells", lambda folder: trained.append(folder) or [])
    page = tables(TablesConfig(train="smoke", shift=shift), Console(quiet=True))
    folder = Path("outputs/tables") / name
    assert rendered == [(at_shift("smoke", shift), Path("data") / name)]
    assert trained == [({FLEETQA: Path("data") / name}, folder), folder / CELLS_DIR]
    assert page.is_relative_to(folder)
