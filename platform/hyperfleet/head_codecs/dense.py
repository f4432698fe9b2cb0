"""Codecs that send every parameter in 32 or 16 bits, of the full head or of its offset."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from hyperfleet.head_codecs.base import GeneratedForm, GeneratedHeads, check_tensors, needed_base
from hyperfleet.head_codecs.heads import BaseHead, DenseHeads
from hyperfleet.head_codecs.layout import HeadLayout

# Rounding to nearest changes a normal number by at most this share, a subnormal one by at most `_TINY`.
_SHARE = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
_TINY = {torch.float32: 0.0, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
FLOAT32_SHARE = 2.0**-24


@dataclass(frozen=True, slots=True)
class DenseCodec:
    """`head` (n, num_params): weights row by row, then the bias.

    Attributes:
        name: name that clients request it by.
        dtype: type of the values; float16 holds values up to 65,504.
        delta: send the offset from the static head, which the device adds back. Offsets are smaller numbers,
            so rounding them costs less.
    """

    name: str
    dtype: torch.dtype
    delta: bool = False

    @property
    def needs_base(self) -> bool:
        """True for offsets only."""
        return self.delta

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """True: any head has parameters."""
        return True

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return 4 or 2 bytes per parameter."""
        return layout.num_params * self.dtype.itemsize

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Cast; float32 is passed on unchanged."""
        return {"head": (generated.offsets() if self.delta else generated.full()).to(self.dtype)}

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> DenseHeads:
        """Return the values as received; see `HeadCodec.decode`."""
        check_tensors(tensors, {"head": (self.dtype, layout.num_params)})
        static = needed_base(base, self.name) if self.delta else None
        return DenseHeads(layout=layout, values=tensors["head"], base=static)

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Unit roundoff times the norm, plus half the smallest number per subnormal value."""
        sent = generated.offsets() if self.delta else generated.full()
        tiny = _TINY[self.dtype] * math.sqrt(sent.shape[1])
        bound: Tensor = _SHARE[self.dtype] * vector_norm(sent, dim=1) + tiny
        # Values too large for the type arrive as infinity.
        bound[sent.abs().amax(dim=1) > torch.finfo(self.dtype).max] = torch.inf
        return bound + rounding_of_sum(generated, self.delta)


def rounding_of_sum(generated: GeneratedHeads, delta: bool) -> Float[Tensor, " head"]:
    """Bound the float32 error of subtracting and adding the static head; zero for full heads."""
    norm = vector_norm(generated.full(), dim=1)
    if not delta or generated.base is None:
        return torch.zeros_like(norm)
    bound: Tensor = 2 * FLOAT32_SHARE * (norm + vector_norm(generated.base.flat))
    return bound
