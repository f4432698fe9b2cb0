"""Codecs with 8-bit weights and one float32 scale per class: a quarter of the bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from hyperfleet.head_codecs.base import GeneratedForm, GeneratedHeads, check_tensors, needed_base
from hyperfleet.head_codecs.dense import FLOAT32_SHARE, rounding_of_sum
from hyperfleet.head_codecs.heads import BaseHead, RowScaledHeads
from hyperfleet.head_codecs.layout import HeadLayout

LEVELS = 127


@dataclass(frozen=True, slots=True)
class RowScaledCodec:
    """`weight` (n, C, H) int8, `scale` (n, C) and `bias` (n, C) float32: w = weight * scale.

    Symmetric, with one scale per row, since the classes of a head differ in size. The bias stays exact: it
    is one number in 97. With `delta` the numbers are the offset from the static head.
    """

    name: str
    delta: bool = False

    @property
    def needs_base(self) -> bool:
        """True for offsets only."""
        return self.delta

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """True: any head has parameters."""
        return True

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return C (H + 8)."""
        return layout.num_classes * (layout.hidden + 8)

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Round each weight to the nearest of 255 multiples of its row's scale."""
        weight, bias = self._split(generated)
        scale = weight.abs().amax(dim=2) / LEVELS
        # A row of zeros has scale zero and stays zero.
        inverse = torch.where(scale > 0, 1 / scale, 0.0).nan_to_num(posinf=0.0)
        levels = (weight * inverse[:, :, None]).round_().clamp_(-LEVELS, LEVELS)
        return {"weight": levels.to(torch.int8), "scale": scale, "bias": bias}

    def decode(
        self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None
    ) -> RowScaledHeads:
        """Return the rows as received; see `HeadCodec.decode`."""
        check_tensors(
            tensors,
            {
                "weight": (torch.int8, layout.num_classes, layout.hidden),
                "scale": (torch.float32, layout.num_classes),
                "bias": (torch.float32, layout.num_classes),
            },
        )
        static = needed_base(base, self.name) if self.delta else None
        return RowScaledHeads(layout=layout, base=static, **tensors)

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Half a scale per weight, plus float32 rounding of scale and product."""
        weight, _ = self._split(generated)
        scale = weight.abs().amax(dim=2) / LEVELS
        rounding = 4 * FLOAT32_SHARE * vector_norm(weight.flatten(1), dim=1)
        # Rows whose scale is below the smallest normal number decode to zero.
        lost = torch.finfo(torch.float32).tiny * LEVELS * math.sqrt(weight[0].numel())
        half_steps = vector_norm(scale, dim=1) * math.sqrt(generated.layout.hidden) / 2
        bound: Tensor = half_steps + rounding + lost + rounding_of_sum(generated, self.delta)
        return bound

    def _split(
        self, generated: GeneratedHeads
    ) -> tuple[Float[Tensor, "head output hidden"], Float[Tensor, "head output"]]:
        layout = generated.layout
        values = generated.offsets() if self.delta else generated.full()
        weight, bias = values.split([layout.num_weights, layout.num_classes], dim=1)
        return weight.unflatten(1, (layout.num_classes, layout.hidden)), bias.contiguous()
