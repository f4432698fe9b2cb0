"""Reading of tensors from third-party files, without running code in a pickle."""

import hashlib
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from hyperfleet.errors import CheckpointError

# Keys of the tensors in a Lightning checkpoint and in the files of DeiT.
_WEIGHT_KEYS = ("state_dict", "model")
# Lightning files also hold settings and the classes of callbacks; none of them is needed.
_IGNORED_MODULES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "sacred.")


def read_tensors(path: Path, *, containing: str = "") -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file onto the CPU, those with `containing` in their name.

    Torch files are read with `weights_only=True`. Objects that Lightning stores beside the weights are
    replaced by dictionaries; a file with any other pickled object is refused.

    Raises:
        CheckpointError: no such file, not readable, with pickled objects, or without tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}; expected a .safetensors file or a torch checkpoint")
    tensors = _read_safetensors(path, containing) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = {name: tensor for name, tensor in tensors.items() if containing in name}
    if not tensors:
        wanted = f" with {containing!r} in their names" if containing else ""
        raise CheckpointError(f"{path} holds no tensors{wanted}; expected the weights of a model")
    return tensors


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path, containing: str) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if containing in name}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}; fetch it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    named = _pickled_names(path)
    refused = sorted(name for name in named if not name.startswith(_IGNORED_MODULES))
    if refused:
        raise CheckpointError(
            f"{path} holds pickled objects ({', '.join(refused[:3])}), which can run code when loaded; "
            "expected tensors and plain values. If you trust the file, save its state_dict as .safetensors "
            "where it was written"
        )
    # Given as a pair, the class replaces the name and nothing is imported; any dictionary will do.
    ignored: list[Any] = [(OrderedDict, name) for name in named]
    try:
        with torch.serialization.safe_globals(ignored):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle makes torch raise errors of many types
        raise CheckpointError(
            f"{path} cannot be read as a torch checkpoint ({type(error).__name__}); expected a file of "
            "torch.save with tensors and plain values, or a .safetensors file; fetch it again"
        ) from error
    return _state_dict(path, content)


def _pickled_names(path: Path) -> list[str]:
    """List the classes and functions that a torch file refers to, besides those of tensors."""
    # Files older than torch 1.6 are not zip archives; the loader itself refuses objects in them.
    if not zipfile.is_zipfile(path):
        return []
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is an archive but not a torch checkpoint ({error}); expected a file of torch.save"
        ) from error


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    for key in _WEIGHT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path} holds no state_dict: expected tensors by name, at the top or below one of "
            f"{', '.join(_WEIGHT_KEYS)}; save the model's state_dict()"
        )
    return {str(name): tensor for name, tensor in content.items()}
