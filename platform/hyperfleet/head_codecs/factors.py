"""Low-rank codecs: r rank-one corrections of the static head, 3.1 r + 2.9 KiB for 1,501 answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs.base import GeneratedForm, GeneratedHeads, check_tensors, needed_base
from hyperfleet.head_codecs.dense import FLOAT32_SHARE
from hyperfleet.head_codecs.heads import BaseHead, FactorHeads
from hyperfleet.head_codecs.layout import HeadLayout

_HALF_SHARE = 2.0**-11

_Factors = tuple[Float[Tensor, "head output _"], Float[Tensor, "head _ hidden"], Float[Tensor, "head output"]]


@dataclass(frozen=True, slots=True)
class FactorCodec:
    """`up` (n, C, r), `down` (n, r, H) and `bias` (n, C), float16: W = W0 + up down, b = b0 + bias.

    Factors from a low-rank hypernetwork are sent unchanged, padded with zeros to rank r. Any other offset is
    cut to its r largest singular values, which gives the nearest matrix of that rank.
    """

    rank: int

    @property
    def name(self) -> str:
        """Name that clients request it by, e.g. rank4."""
        return f"rank{self.rank}"

    @property
    def needs_base(self) -> bool:
        """True."""
        return True

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """True if the head can have this rank."""
        return self.rank <= min(layout.num_classes, layout.hidden)

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return 2 (r (C + H) + C)."""
        self._check_fits(layout)
        return 2 * (self.rank * (layout.num_classes + layout.hidden) + layout.num_classes)

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Return the factors.

        Raises:
            ConfigError: the head cannot have this rank.
            HeadLayoutError: the model has no static head.
        """
        up, down, bias = self._factors(generated)
        return {"up": up.half(), "down": down.half(), "bias": bias.half()}

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> FactorHeads:
        """Return the factors as received; see `HeadCodec.decode`."""
        check_tensors(
            tensors,
            {
                "up": (torch.float16, layout.num_classes, self.rank),
                "down": (torch.float16, self.rank, layout.hidden),
                "bias": (torch.float16, layout.num_classes),
            },
        )
        static = needed_base(base, self.name)
        return FactorHeads(layout=layout, base=static, **tensors)

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Distance to the nearest matrix of rank r (Eckart and Young), plus rounding of the factors."""
        up, down, bias = self._factors(generated)
        layout = generated.layout
        offsets = generated.offsets()
        weight = offsets[:, : layout.num_weights].unflatten(1, (layout.num_classes, layout.hidden))
        beyond = vector_norm((weight - up @ down).flatten(1), dim=1)
        up_norm, down_norm = vector_norm(up.flatten(1), dim=1), vector_norm(down.flatten(1), dim=1)
        tiny = 2.0**-25
        up_error = _HALF_SHARE * up_norm + tiny * (up[0].numel() ** 0.5)
        down_error = _HALF_SHARE * down_norm + tiny * (down[0].numel() ** 0.5)
        rounding = up_error * down_norm + down_error * up_norm + up_error * down_error
        rounding += _HALF_SHARE * vector_norm(bias, dim=1) + tiny * (bias.shape[1] ** 0.5)
        # Values too large for float16 arrive as infinity.
        largest = torch.stack([part.flatten(1).abs().amax(dim=1) for part in (up, down, bias)]).amax(dim=0)
        rounding[largest > torch.finfo(torch.float16).max] = torch.inf
        # Sums of 96 products, and the static head's own, in float32.
        float32 = 200 * FLOAT32_SHARE * (up_norm * down_norm + vector_norm(generated.full(), dim=1) + beyond)
        bound: Tensor = beyond + rounding + float32
        return bound

    def _check_fits(self, layout: HeadLayout) -> None:
        if not self.carries("full", layout):
            raise ConfigError(
                f"a head of {layout.num_classes} x {layout.hidden} weights has at most rank "
                f"{min(layout.num_classes, layout.hidden)}, got codec {self.name!r}"
            )

    def _factors(self, generated: GeneratedHeads) -> _Factors:
        self._check_fits(generated.layout)
        if generated.form == "low_rank":
            factors = split_factors(generated.numbers, generated.layout)
            if factors[0].shape[2] <= self.rank:
                return _padded(factors, self.rank)
        return _nearest(generated, self.rank)


def split_factors(numbers: Float[Tensor, "head number"], layout: HeadLayout) -> _Factors:
    """View the output of a low-rank hypernetwork as U (n, C, r), V (n, r, H) and bias (n, C)."""
    outputs, hidden = layout.num_classes, layout.hidden
    rank = (numbers.shape[1] - outputs) // (outputs + hidden)
    up, down, bias = numbers.split([outputs * rank, rank * hidden, outputs], dim=1)
    return up.unflatten(1, (outputs, rank)), down.unflatten(1, (rank, hidden)), bias


def _padded(factors: _Factors, rank: int) -> _Factors:
    up, down, bias = factors
    missing = rank - up.shape[2]
    if missing == 0:
        return factors
    pad = torch.nn.functional.pad
    return pad(up, (0, missing)), pad(down, (0, 0, 0, missing)), bias


def _nearest(generated: GeneratedHeads, rank: int) -> _Factors:
    layout = generated.layout
    weight, bias = generated.offsets().split([layout.num_weights, layout.num_classes], dim=1)
    weight = weight.unflatten(1, (layout.num_classes, layout.hidden))
    # The H x H Gram matrix, since `torch.svd_lowrank` draws random numbers and would answer a repeated
    # request differently. Singular values below 3e-4 of the largest are inexact, but those are cut.
    _, vectors = torch.linalg.eigh(weight.mT @ weight)
    down = vectors[:, :, -rank:].flip(2)
    return weight @ down, down.mT, bias
