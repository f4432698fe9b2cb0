from pathlib import Path

import pytest
import safetensors.torch
import torch

from hyperfleet.errors import CheckpointError
from pipelines.training_worker import writing
from tests.worlds.small_disk import small_disk


def test_whatever_a_full_disk_makes_of_a_file_is_one_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        for write in (
            lambda: safetensors.torch.save_file({"a": torch.zeros(1 << 20)}, disk / "model.safetensors"),
            lambda: (disk / "metrics.json").write_bytes(bytes(1 << 20)),
        ):
            with pytest.raises(CheckpointError, match=r"on node .*No space left.*make room"), writing():
                write()
