"""Every parameter of a head, in 32 or 16 bits, whole or less the static head."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from hyperfleet.head_codecs.base import GeneratedForm, GeneratedHeads, check_tensors, needed_base
from hyperfleet.head_codecs.base_head import BaseHead
from hyperfleet.head_codecs.heads import DenseHeads
from hyperfleet.head_codecs.layout import HeadLayout

# Rounding to nearest moves a normal number by at most this share of it, a subnormal one by at most `_TINY`.
_SHARE = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
_TINY = {torch.float32: 0.0, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
FLOAT32_SHARE = 2.0**-24


@dataclass(frozen=True, slots=True)
class DenseCodec:
    """`head` (n, num_params): weights row by row, then the bias.

    Attributes:
        name: what a client asks for.
        dtype: type of the values; float16 holds values up to 65,504.
        delta: send the difference to the static head, which the device adds: the smaller the numbers, the
            smaller what rounding takes from them.
    """

    name: str
    dtype: torch.dtype
    delta: bool = False

    @property
    def needs_base(self) -> bool:
        """Only as a difference."""
        return self.delta

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """Any heads can."""
        return True

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return 4 or 2 bytes a parameter."""
        return layout.num_params * self.dtype.itemsize

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Cast; float32 is passed on as it is."""
        return {"head": (generated.offsets() if self.delta else generated.whole()).to(self.dtype)}

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> DenseHeads:
        """Return the values as they came; see `HeadCodec.decode`."""
        check_tensors(tensors, {"head": (self.dtype, layout.num_params)})
        static = needed_base(base, self.name) if self.delta else None
        return DenseHeads(layout=layout, values=tensors["head"], base=static)

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Unit roundoff times the norm, and half the smallest number for each value below the normal ones."""
        sent = generated.offsets() if self.delta else generated.whole()
        tiny = _TINY[self.dtype] * math.sqrt(sent.shape[1])
        bound: Tensor = _SHARE[self.dtype] * vector_norm(sent, dim=1) + tiny
        # What is too large for the type arrives as infinity.
        bound[sent.abs().amax(dim=1) > torch.finfo(self.dtype).max] = torch.inf
        return bound + rounding_of_sum(generated, self.delta)


def rounding_of_sum(generated: GeneratedHeads, delta: bool) -> Float[Tensor, " head"]:
    """Bound what float32 loses in taking the static head away and adding it again, zero for whole heads."""
    whole = vector_norm(generated.whole(), dim=1)
    if not delta or generated.base is None:
        return torch.zeros_like(whole)
    bound: Tensor = 2 * FLOAT32_SHARE * (whole + vector_norm(generated.base.flat))
    return bound
