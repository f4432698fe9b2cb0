"""Codec for film heads: the two vectors that modulate the input of the static head."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from hyperfleet.errors import HeadLayoutError
from hyperfleet.head_codecs.base import GeneratedForm, GeneratedHeads, check_tensors, needed_base
from hyperfleet.head_codecs.dense import FLOAT32_SHARE
from hyperfleet.head_codecs.heads import BaseHead, Heads, ModulatedHeads
from hyperfleet.head_codecs.layout import HeadLayout


@dataclass(frozen=True, slots=True)
class ModulationCodec:
    """`scale` and `shift` (n, H) float32 of a film hypernetwork: 0.75 KiB per head for any number of classes.

    W = W0 diag(1 + scale), b = b0 + W0 shift.
    """

    name: str = "film"

    @property
    def needs_base(self) -> bool:
        """True."""
        return True

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """True for modulations only."""
        return form == "film"

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return 8 H."""
        return 8 * layout.hidden

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Return the emitted numbers unchanged.

        Raises:
            HeadLayoutError: the hypernetwork generates another form.
        """
        if generated.form != "film":
            raise HeadLayoutError(
                f"codec {self.name!r} sends modulations, this model generates {generated.form} heads; "
                "request fp32, fp16, bf16, int8 or a rank"
            )
        scale, shift = generated.numbers.chunk(2, dim=1)
        return {"scale": scale, "shift": shift}

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> Heads:
        """Return the modulations as received; see `HeadCodec.decode`."""
        check_tensors(
            tensors, {"scale": (torch.float32, layout.hidden), "shift": (torch.float32, layout.hidden)}
        )
        static = needed_base(base, self.name)
        return ModulatedHeads(layout=layout, base=static, **tensors)

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Float32 summation order only; the numbers are exact."""
        scale, shift = generated.numbers.chunk(2, dim=1)
        size = 2 + vector_norm(scale, dim=1) + vector_norm(shift, dim=1)
        base = needed_base(generated.base, self.name)
        bound: Tensor = 200 * FLOAT32_SHARE * size * vector_norm(base.flat)
        return bound
