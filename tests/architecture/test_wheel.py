"""The wheel holds the four packages, their data files, and no `platform`."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120
    )
    (built,) = folder.glob("*.whl")
    return zipfile.Path(built)


def test_four_packages_and_no_platform(wheel: zipfile.Path) -> None:
    tops = {entry.name for entry in wheel.iterdir() if not entry.name.endswith(".dist-info")}
    assert tops == {"hyperfleet", "actors", "pipelines", "serve_apps"}


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.Path) -> None:
    names = set(wheel.root.namelist())
    wanted = {
        str(path.relative_to(root))
        for root, package in [
            (ROOT / "platform", "hyperfleet"),
            *((ROOT, name) for name in ("actors", "pipelines", "serve_apps")),
        ]
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - names == set()
    assert "hyperfleet/py.typed" in names
    assert any(name.startswith("hyperfleet/evaluation/templates/") for name in names)


def test_it_installs_the_command(wheel: zipfile.Path) -> None:
    (metadata,) = (name for name in wheel.root.namelist() if name.endswith("entry_points.txt"))
    assert "hyperfleet = pipelines.cli:main" in wheel.root.read(metadata).decode()
