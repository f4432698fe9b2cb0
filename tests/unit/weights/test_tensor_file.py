import sys
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from hyperfleet.errors import CheckpointError
from hyperfleet.weights.tensor_file import file_sha256, read_tensors


def tensors() -> dict[str, Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(2)}


def assert_read(path: Path) -> None:
    read = read_tensors(path)
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors().items())


@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_torch_files_are_read_with_the_tensors_at_the_top_or_below(tmp_path: Path, key: str | None) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(tensors() if key is None else {key: tensors(), "epoch": 3}, path)
    assert_read(path)


def test_files_of_old_torch_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": tensors()}, path, _use_new_zipfile_serialization=False)
    assert_read(path)


def test_safetensors_are_read_whole_or_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(tensors(), path)
    assert_read(path)
    assert read_tensors(path, containing="bias").keys() == {"b.bias"}
    with pytest.raises(CheckpointError, match="no tensors with 'pooler'"):
        read_tensors(path, containing="pooler")
    assert len(file_sha256(path)) == 64


def test_lightnings_own_classes_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning before 1.5 stores the state of callbacks under their classes.
    path, module = tmp_path / "last.ckpt", types.ModuleType("pytorch_lightning.callbacks")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    module.Settings = type("Settings", (dict,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
        patch.setitem(sys.modules, module.__name__, module)
        callbacks = {module.ModelCheckpoint: {"monitor": "val", "best": torch.ones(1)}}
        settings = module.Settings(seed=1)
        settings.note = "x"
        torch.save({"state_dict": tensors(), "callbacks": callbacks, "hyper_parameters": settings}, path)
    before = torch.serialization.get_safe_globals()
    assert_read(path)
    assert torch.serialization.get_safe_globals() == before


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("zipped", [True, False])
def test_other_pickled_objects_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.ckpt"
    torch.save({"state_dict": tensors(), "x": Trap()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"pickled objects \(.*Path" if zipped else "cannot be read"):
        read_tensors(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.ckpt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="no weights at"):
        read_tensors(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(path)


def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.pt"
    for content in ({"state_dict": {"lr": 0.1}}, [torch.ones(1)], torch.ones(1)):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="no state_dict"):
            read_tensors(path)
    torch.save({}, path)
    with pytest.raises(CheckpointError, match="no tensors"):
        read_tensors(path)
