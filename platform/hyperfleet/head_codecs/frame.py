"""Tensors to safetensors bytes with one copy, and back with none.

The library copies each tensor to bytes, then all of them into the file, and again when it reads; at
569 KiB a head these copies cost as much as sending it. The format is the library's: the tests read with it
what `pack` writes, and `unpack` what it writes.
"""

import json
import math
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperfleet.errors import HeadLayoutError

MAX_HEADER_BYTES = 65_536
LENGTH_BYTES = 8
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}

_Spec = tuple[str, torch.dtype, tuple[int, ...]]


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of `tensors`, which lie on the CPU and have a type that heads travel in."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    specs = tuple((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in contiguous.items())
    header = _header(specs, tuple(metadata.items()))
    return b"".join([header, *map(_memory_of, contiguous.values())])


class RowFiles:
    """Safetensors files of some rows each of the same tensors, whose first axis is the rows.

    Args:
        tensors: on the CPU, of a type that heads travel in, all with the same number of rows.
        metadata: of every file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._specs = [(name, tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in contiguous.items()]
        self._metadata = tuple(metadata.items())
        self._memory = [(_memory_of(tensor), tensor[0].nbytes) for tensor in contiguous.values()]

    def of(self, start: int, stop: int) -> bytes:
        """Return the file of rows `start` to `stop`, with one copy."""
        specs = tuple((name, dtype, (stop - start, *shape)) for name, dtype, shape in self._specs)
        rows = [memory[start * row_bytes : stop * row_bytes] for memory, row_bytes in self._memory]
        return b"".join([_header(specs, self._metadata), *rows])


def _memory_of(tensor: Tensor) -> memoryview:
    # NumPy knows no bfloat16.
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy().data.cast("B")


@lru_cache(maxsize=256)
def _header(specs: tuple[_Spec, ...], metadata: tuple[tuple[str, str], ...]) -> bytes:
    fields: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, dtype, shape in specs:
        end = start + math.prod(shape) * dtype.itemsize
        fields[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    # The format wants the data aligned, and blanks to do it.
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def unpack(body: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors that view `body`, to be read only, and the metadata.

    Raises:
        HeadLayoutError: no safetensors file, a type that heads do not travel in, holes or missing bytes.
    """
    start = _data_start(body)
    try:
        header = json.loads(body[LENGTH_BYTES:start])
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        return _tensors(body, start, header), metadata
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, HeadLayoutError):
            raise
        raise HeadLayoutError(
            f"the reply of {len(body)} bytes is no safetensors file: its header is damaged ({error})"
        ) from error


def _data_start(body: bytes) -> int:
    header_bytes = int.from_bytes(body[:LENGTH_BYTES], "little")
    if len(body) < LENGTH_BYTES or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, len(body) - LENGTH_BYTES):
        raise HeadLayoutError(
            f"the reply of {len(body)} bytes is no safetensors file: it announces a header of "
            f"{header_bytes} bytes, at most {MAX_HEADER_BYTES} fit a reply"
        )
    return LENGTH_BYTES + header_bytes


def _tensors(body: bytes, start: int, header: dict[str, Any]) -> dict[str, Tensor]:
    _let_torch_warn_now()
    tensors = {}
    end = 0
    for name, spec in header.items():
        dtype = _DTYPES.get(spec["dtype"])
        if dtype is None:
            raise HeadLayoutError(
                f"tensor {name!r} is of type {spec['dtype']!r}; heads travel as {', '.join(_DTYPES)}"
            )
        shape, (first, last) = spec["shape"], spec["data_offsets"]
        if any(type(size) is not int or size < 1 for size in shape) or type(first) is type(last) is not int:
            raise HeadLayoutError(f"tensor {name!r} has shape {shape!r}; sizes are integers above 0")
        count = math.prod(shape)
        if first != end or last - first != count * dtype.itemsize or last > len(body) - start or count < 1:
            raise HeadLayoutError(
                f"tensor {name!r} of shape {shape} claims bytes {first} to {last} of {len(body) - start}; "
                "the reply is damaged"
            )
        values = torch.frombuffer(body, dtype=dtype, count=count, offset=start + first)
        tensors[name] = values.reshape(shape)
        end = last
    if end != len(body) - start:
        raise HeadLayoutError(
            f"the reply has {len(body) - start - end} bytes behind its last tensor; it is damaged"
        )
    return tensors


def read_only(array: np.ndarray) -> Tensor:
    """View an array that must not be written to as a tensor that must not be written to."""
    _let_torch_warn_now()
    flat = np.ascontiguousarray(array)
    return torch.frombuffer(flat.data, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype).reshape(
        array.shape
    )


@cache
def _let_torch_warn_now() -> None:
    # It says once a process that memory it was given is read-only, which is what we want it to be.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.int8)
