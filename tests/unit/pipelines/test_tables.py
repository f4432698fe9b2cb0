from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hyperfleet.datasets.fleetqa.scales import TRAITS, USUAL_TRAITS, with_traits
from hyperfleet.papers.experiments.plan import FLEETQA
from pipelines import tables as command
from pipelines.commands.models import TablesConfig
from pipelines.tables import CELLS_DIR, tables


@pytest.mark.parametrize(
    ("personal", "name"),
    [(USUAL_TRAITS, "smoke"), ((), "smoke-control"), (TRAITS, "smoke-words-taste-camera")],
)
def test_each_choice_of_traits_has_its_own_data_and_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, personal: tuple[str, ...], name: str
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
    page = tables(TablesConfig(train="smoke", personal=personal), Console(quiet=True))
    folder = Path("outputs/tables") / name
    assert rendered == [(with_traits("smoke", personal), Path("data") / name)]
    assert trained == [({FLEETQA: Path("data") / name}, folder), folder / CELLS_DIR]
    assert page.is_relative_to(folder)
