"""Weights that are already on this machine; nothing is ever downloaded."""

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import torch


def cached_hub_file(repositories: Sequence[str], names: Sequence[str]) -> Path | None:
    """Return the first of the files `names` that the local Hugging Face cache holds of `repositories`."""
    for repository in repositories:
        for name in names:
            path = huggingface_hub.try_to_load_from_cache(repository, name)
            if isinstance(path, str):  # otherwise not cached, or known not to exist
                return Path(path)
    return None


def cached_torch_file(url: str) -> Path | None:
    """Return torch.hub's file of `url`, if it was downloaded before."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if path.is_file() else None
