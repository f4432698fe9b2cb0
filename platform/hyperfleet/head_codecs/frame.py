"""Safetensors files, written with one copy of the tensors and read with none.

The safetensors library copies each tensor to bytes, then all of them into the file, and again when it
reads; at 569 KiB per head these copies cost as much as sending it. Tests check both directions against the
library.
"""

import json
import math
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
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

# Environment of processes that handle many heads, read when a process starts. glibc returns allocations above
# 32 MiB (57 heads of 1,501 answers) and trimmed memory to the kernel; faulting the pages in again costs
# generators and clients more than the work itself.
KEEP_MEMORY: Mapping[str, str] = MappingProxyType(
    {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of `tensors`, which are on the CPU and of a type in `_NAMES`."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    specs = tuple((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in contiguous.items())
    header = _header(specs, tuple(metadata.items()))
    return b"".join([header, *map(_memory_of, contiguous.values())])


class RowFiles:
    """Safetensors files that each hold some rows of the same tensors.

    Args:
        tensors: on the CPU, of a type in `_NAMES`, rows along the first axis, equally many in each.
        metadata: metadata of every file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._specs = [(name, tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in contiguous.items()]
        self._metadata = tuple(metadata.items())
        self._memory = [(_memory_of(tensor), tensor[0].nbytes) for tensor in contiguous.values()]

    def of(self, start: int, stop: int) -> bytes:
        """Return a file of rows `start` to `stop`, with one copy."""
        specs = tuple((name, dtype, (stop - start, *shape)) for name, dtype, shape in self._specs)
        rows = [memory[start * row_bytes : stop * row_bytes] for memory, row_bytes in self._memory]
        return b"".join([_header(specs, self._metadata), *rows])


def _memory_of(tensor: Tensor) -> memoryview:
    # NumPy has no bfloat16.
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
    # The format pads the header with blanks, so that the data is aligned.
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def unpack(body: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return read-only tensors that view `body`, and the metadata.

    Raises:
        HeadLayoutError: not a safetensors file, a type that heads do not use, holes or missing bytes.
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
            f"the reply of {len(body)} bytes is not a safetensors file: its header is damaged ({error})"
        ) from error


def _data_start(body: bytes) -> int:
    header_bytes = int.from_bytes(body[:LENGTH_BYTES], "little")
    if len(body) < LENGTH_BYTES or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, len(body) - LENGTH_BYTES):
        raise HeadLayoutError(
            f"the reply of {len(body)} bytes is not a safetensors file: it announces a header of "
            f"{header_bytes} bytes, at most {MAX_HEADER_BYTES} are allowed"
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
                f"tensor {name!r} is of type {spec['dtype']!r}; heads are sent as {', '.join(_DTYPES)}"
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
            f"the reply has {len(body) - start - end} bytes after its last tensor; it is damaged"
        )
    return tensors


def read_only(array: np.ndarray) -> Tensor:
    """View a read-only array as a tensor, which must not be written to either."""
    _let_torch_warn_now()
    flat = np.ascontiguousarray(array)
    return torch.frombuffer(flat.data, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype).reshape(
        array.shape
    )


@cache
def _let_torch_warn_now() -> None:
    # torch warns once per process about read-only memory, which is intended here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.int8)
