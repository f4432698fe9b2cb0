from pathlib import Path

import pytest

from hyperfleet.errors import ConfigError
from pipelines import storage


@pytest.fixture
def joined(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.delenv(storage.VARIABLE, raising=False)
    return monkeypatch


def test_on_one_machine_every_folder_is_everywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(storage.VARIABLE, raising=False)
    assert storage.is_everywhere(tmp_path)
    assert storage.writing_to(tmp_path) == {}
    assert storage.for_all_nodes(tmp_path).path() == tmp_path
    assert storage.checkpoints_of("run", tmp_path) == str(tmp_path)


def test_on_a_cluster_only_what_is_mounted_everywhere_is(joined, tmp_path):
    joined.setenv(storage.VARIABLE, f"{tmp_path}/")
    assert storage.is_everywhere(tmp_path / "out")
    assert storage.checkpoints_of("run", tmp_path / "out") == str(tmp_path / "out")
    assert not storage.is_everywhere(tmp_path.with_name(f"{tmp_path.name}2"))
    assert storage.checkpoints_of("run", Path("/elsewhere")) == f"{tmp_path}/train/run"


def test_an_object_store_takes_the_checkpoints_and_no_folder_is_everywhere(joined, tmp_path):
    joined.setenv(storage.VARIABLE, "s3://bucket/prefix")
    assert not storage.is_everywhere(tmp_path)
    assert storage.checkpoints_of("run", tmp_path) == "s3://bucket/prefix/train/run"


def test_a_cluster_without_storage_is_refused_before_a_worker_starts(joined, tmp_path):
    with pytest.raises(ConfigError, match="set HYPERFLEET_STORAGE to a folder that every node mounts"):
        storage.checkpoints_of("run", tmp_path)
    joined.setenv(storage.VARIABLE, "relative/path")
    with pytest.raises(ConfigError, match=r"absolute path.*s3://bucket/prefix, got 'relative/path'"):
        storage.is_everywhere(tmp_path)
