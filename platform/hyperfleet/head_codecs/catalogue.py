"""All head codecs by name.

Names need no torch: the command line refuses an unknown one before torch is imported.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from hyperfleet.lazy_table import LazyTable

if TYPE_CHECKING:
    from hyperfleet.head_codecs.base import HeadCodec

RANKS = (1, 2, 4, 8, 16)
# Exact, and the form that the papers measure. Clients that want fewer bytes request another codec.
DEFAULT_CODEC = "fp32"


def _dense(name: str, dtype: str, *, delta: bool = False) -> Any:
    import torch

    from hyperfleet.head_codecs.dense import DenseCodec

    return DenseCodec(name, getattr(torch, dtype), delta=delta)


def _row_scaled(name: str, *, delta: bool = False) -> Any:
    from hyperfleet.head_codecs.row_scaled import RowScaledCodec

    return RowScaledCodec(name, delta=delta)


def _factors(_: str, rank: int) -> Any:
    from hyperfleet.head_codecs.factors import FactorCodec

    return FactorCodec(rank)


def _modulation(name: str) -> Any:
    from hyperfleet.head_codecs.modulation import ModulationCodec

    return ModulationCodec(name)


CODECS: "LazyTable[HeadCodec]" = LazyTable(
    "head codec",
    {
        "fp32": partial(_dense, dtype="float32"),
        "fp16": partial(_dense, dtype="float16"),
        "bf16": partial(_dense, dtype="bfloat16"),
        "delta-fp16": partial(_dense, dtype="float16", delta=True),
        "int8": _row_scaled,
        "delta-int8": partial(_row_scaled, delta=True),
        **{f"rank{rank}": partial(_factors, rank=rank) for rank in RANKS},
        "film": _modulation,
    },
)

codec = CODECS.named
