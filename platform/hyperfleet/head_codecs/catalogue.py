"""All head codecs by name."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from hyperfleet.errors import unknown_name
from hyperfleet.head_codecs.base import GeneratedForm, HeadCodec
from hyperfleet.head_codecs.dense import DenseCodec
from hyperfleet.head_codecs.factors import FactorCodec
from hyperfleet.head_codecs.layout import HeadLayout
from hyperfleet.head_codecs.modulation import ModulationCodec
from hyperfleet.head_codecs.row_scaled import RowScaledCodec

RANKS = (1, 2, 4, 8, 16)
# Exact, and the papers' measure. Clients that want fewer bytes request another codec.
DEFAULT_CODEC = "fp32"

_ALL: tuple[HeadCodec, ...] = (
    DenseCodec("fp32", torch.float32),
    DenseCodec("fp16", torch.float16),
    DenseCodec("bf16", torch.bfloat16),
    DenseCodec("delta-fp16", torch.float16, delta=True),
    RowScaledCodec("int8"),
    RowScaledCodec("delta-int8", delta=True),
    *(FactorCodec(rank) for rank in RANKS),
    ModulationCodec(),
)
CODECS: Mapping[str, HeadCodec] = MappingProxyType({each.name: each for each in _ALL})


def codec(name: str) -> HeadCodec:
    """Return the codec called `name`.

    Raises:
        UnknownNameError: there is no such codec.
    """
    if name not in CODECS:
        raise unknown_name("head codec", name, CODECS)
    return CODECS[name]


def codecs_of(form: GeneratedForm, layout: HeadLayout, *, has_base: bool) -> tuple[str, ...]:
    """Return the names of the codecs that can carry heads of this form and layout."""
    return tuple(
        name
        for name, each in CODECS.items()
        if (has_base or not each.needs_base) and each.carries(form, layout)
    )
