import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from actors import node_folder
from actors.node_folder import NodeFolder, on_this_node, ship_folder
from hyperfleet.errors import DataError
from pipelines.runtime import connect, disconnect

pytestmark = pytest.mark.integration

CONTENTS = {"a.json": b"{}", "empty": b"", "videos/b.mp4": bytes(range(256)) * 100}


@pytest.fixture(scope="module", autouse=True)
def _ray():
    connect(num_cpus=2)
    yield
    disconnect()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@ray.remote(num_cpus=0)
def place_of(folder: NodeFolder) -> tuple[Path, dict[str, bytes], int]:
    path = folder.path()
    return path, read(path), path.stat().st_ino


@pytest.mark.heavy
def test_a_node_fetches_a_folder_once_however_many_of_its_processes_ask(data, tmp_path, monkeypatch):
    monkeypatch.setattr(node_folder, "PART_BYTES", 1000)  # so that a file has several parts
    shipped = ship_folder(data)
    temporary = tmp_path / "node"
    temporary.mkdir()
    on_node = place_of.options(runtime_env={"env_vars": {"TMPDIR": str(temporary)}})
    answers = ray.get([on_node.remote(shipped) for _ in range(4)])
    assert len({path for path, _, _ in answers}) == len({inode for _, _, inode in answers}) == 1
    assert all(path.is_relative_to(temporary) for path, _, _ in answers)
    assert all(found == CONTENTS for _, found, _ in answers)
    # Another process later: still there, and nothing of the way there is left.
    path, found, inode = ray.get(on_node.remote(shipped))
    assert (path, found, inode) == answers[0]
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_another_content_is_another_folder_and_the_same_is_not(data, tmp_path):
    first = ship_folder(data).digest
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    assert ship_folder(copy).digest == first
    (copy / "a.json").write_bytes(b"{ }")
    assert ship_folder(copy).digest != first
    (data / "a.json").rename(data / "c.json")
    assert ship_folder(data).digest != first


def test_a_folder_that_every_node_has_is_opened_where_it_is(data):
    assert on_this_node(data).path() == data


def test_a_full_disk_is_named_with_what_is_missing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(node_folder.tempfile, "tempdir", None)
    shipped = ship_folder(data)
    monkeypatch.setattr(node_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(
        DataError, match=r"25,602 bytes are needed, 10 are free.*free some of its disk.*TMPDIR"
    ):
        shipped.path()
    assert not list(tmp_path.rglob("a.json.*"))
