"""Forms of a hypernetwork's output: a full head, factors of one, or a modulation of its input.

`full` emits every weight and bias. `low_rank` emits U (C x r), V (r x H) and a bias for
W0 + U V; `film` a scale and a shift of the head's input. The last two need the static head W0, which
the device holds already, and can be sent as they are (`hyperfleet.head_codecs`).
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.head_codecs import GeneratedForm, HeadLayout
from hyperfleet.head_codecs.factors import split_factors

# The device's own head, as a function of its input.
StaticHead = Callable[[Tensor], Tensor]


@runtime_checkable
class HeadForm(Protocol):
    """Conversion of generated numbers into a head of `layout`."""

    layout: HeadLayout

    @property
    def num_generated(self) -> int:
        """Numbers emitted per head: all that has to cross the link."""
        ...

    def init_(self, emitter: nn.Linear, gain: float) -> None:
        """Initialise the layer that emits the numbers; `gain` scales the generated part of the logits."""
        ...

    def outputs(
        self,
        generated: Float[Tensor, "sample number"],
        hidden: Float[Tensor, "sample item hidden"],
        static: StaticHead | None,
    ) -> Float[Tensor, "sample item output"]:
        """Apply each sample's head to its items, on top of the `static` head where there is one."""
        ...

    def materialise(
        self, generated: Float[Tensor, "sample number"], base: Float[Tensor, " param"]
    ) -> Float[Tensor, "sample param"]:
        """Return full heads, flat in `HeadLayout` order; `base` is the static one, zero for none."""
        ...


def apply_heads(
    flat: Float[Tensor, "sample param"], hidden: Float[Tensor, "sample item hidden"], layout: HeadLayout
) -> Float[Tensor, "sample item output"]:
    """Apply each sample's own head to its items: P = W phi(F_g) + b (equation 7)."""
    num_weights = layout.num_classes * layout.hidden
    weight = flat[:, :num_weights].unflatten(1, (layout.num_classes, layout.hidden))
    return torch.einsum("nch,nkh->nkc", weight, hidden) + flat[:, None, num_weights:]


class FullHead:
    """Every weight and every bias of the head."""

    def __init__(self, layout: HeadLayout) -> None:
        self.layout = layout

    @property
    def num_generated(self) -> int:
        """Weights and bias: C (H + 1)."""
        return self.layout.num_params

    def init_(self, emitter: nn.Linear, gain: float) -> None:
        """Hyperfan-in: the head's logits get variance `gain`^2.

        Chang et al., Principled Weight Initialization for Hypernetworks, ICLR 2020, for a linear main
        layer with a generated bias and input of unit variance on both sides: weight rows get variance
        1 / (2 fan_in d_k), bias rows 1 / (2 d_k), the layer's own bias is zero.
        """
        num_weights = self.layout.num_classes * self.layout.hidden
        embed = emitter.in_features
        weight_bound = gain * math.sqrt(3 / (2 * self.layout.hidden * embed))
        bias_bound = gain * math.sqrt(3 / (2 * embed))
        with torch.no_grad():
            emitter.weight[:num_weights].uniform_(-weight_bound, weight_bound)
            emitter.weight[num_weights:].uniform_(-bias_bound, bias_bound)
            emitter.bias.zero_()

    def outputs(
        self,
        generated: Float[Tensor, "sample number"],
        hidden: Float[Tensor, "sample item hidden"],
        static: StaticHead | None,
    ) -> Float[Tensor, "sample item output"]:
        """W0 phi + dW phi: the static part needs no copy of W0 per sample."""
        own = apply_heads(generated, hidden, self.layout)
        return own if static is None else own + static(hidden)

    def materialise(
        self, generated: Float[Tensor, "sample number"], base: Float[Tensor, " param"]
    ) -> Float[Tensor, "sample param"]:
        """Return base + offset."""
        return base + generated


class LowRankHead:
    """U V and a bias on top of the static head.

    Raises:
        ConfigError: a rank that is not positive, or saves nothing.
    """

    def __init__(self, layout: HeadLayout, rank: int) -> None:
        if not 1 <= rank <= min(layout.num_classes, layout.hidden):
            raise ConfigError(
                f"a head of {layout.num_classes} x {layout.hidden} weights has ranks 1 to "
                f"{min(layout.num_classes, layout.hidden)}, got {rank}"
            )
        self.layout = layout
        self.rank = rank

    @property
    def num_generated(self) -> int:
        """Factors and bias: r (C + H) + C."""
        return self.rank * (self.layout.num_classes + self.layout.hidden) + self.layout.num_classes

    def init_(self, emitter: nn.Linear, gain: float) -> None:
        """Hyperfan for V, zero for U and bias: the head starts as the static one, with a gradient for U."""
        outputs, hidden, rank = self.layout.num_classes, self.layout.hidden, self.rank
        bound = math.sqrt(3 / (hidden * emitter.in_features))
        with torch.no_grad():
            emitter.weight.zero_()
            emitter.weight[outputs * rank : (outputs + hidden) * rank].uniform_(-bound, bound)
            emitter.bias.zero_()

    def outputs(
        self,
        generated: Float[Tensor, "sample number"],
        hidden: Float[Tensor, "sample item hidden"],
        static: StaticHead | None,
    ) -> Float[Tensor, "sample item output"]:
        """W0 phi + U (V phi) + b, never multiplied out."""
        up, down, bias = split_factors(generated, self.layout)
        inner = torch.einsum("nrh,nkh->nkr", down, hidden)
        own = torch.einsum("ncr,nkr->nkc", up, inner) + bias[:, None]
        return own if static is None else own + static(hidden)

    def materialise(
        self, generated: Float[Tensor, "sample number"], base: Float[Tensor, " param"]
    ) -> Float[Tensor, "sample param"]:
        """Multiply the factors out and add the static head."""
        up, down, bias = split_factors(generated, self.layout)
        return base + torch.cat([(up @ down).flatten(1), bias], dim=1)


class FilmHead:
    """A scale and a shift of the head's input (feature-wise linear modulation); the head stays static."""

    def __init__(self, layout: HeadLayout) -> None:
        self.layout = layout

    @property
    def num_generated(self) -> int:
        """Scale and shift: 2 H."""
        return 2 * self.layout.hidden

    def init_(self, emitter: nn.Linear, gain: float) -> None:
        """Zero: the head starts as the static one."""
        nn.init.zeros_(emitter.weight)
        nn.init.zeros_(emitter.bias)

    def outputs(
        self,
        generated: Float[Tensor, "sample number"],
        hidden: Float[Tensor, "sample item hidden"],
        static: StaticHead | None,
    ) -> Float[Tensor, "sample item output"]:
        """W0 ((1 + scale) phi + shift) + b0.

        Raises:
            ConfigError: there is no static head to modulate.
        """
        if static is None:
            raise ConfigError("a film head modulates the static head's input; set static_base=True")
        scale, shift = generated[:, None].chunk(2, dim=-1)
        return static((1 + scale) * hidden + shift)

    def materialise(
        self, generated: Float[Tensor, "sample number"], base: Float[Tensor, " param"]
    ) -> Float[Tensor, "sample param"]:
        """Fold scale and shift into weights and bias: W0 diag(1 + scale), b0 + W0 shift."""
        scale, shift = generated.chunk(2, dim=-1)
        num_weights = self.layout.num_classes * self.layout.hidden
        weight = base[:num_weights].unflatten(0, (self.layout.num_classes, self.layout.hidden))
        folded = weight * (1 + scale)[:, None]
        return torch.cat([folded.flatten(1), base[num_weights:] + shift @ weight.T], dim=1)


def head_form(name: GeneratedForm, layout: HeadLayout, rank: int) -> HeadForm:
    """Return the form called `name`; only `low_rank` uses `rank`.

    Raises:
        UnknownNameError: there is none of that name.
        ConfigError: a rank the layout cannot have.
    """
    match name:
        case "full":
            return FullHead(layout)
        case "low_rank":
            return LowRankHead(layout, rank)
        case "film":
            return FilmHead(layout)
    raise unknown_name("head form", name, ("full", "low_rank", "film"))
