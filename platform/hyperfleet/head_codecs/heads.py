"""Heads as a device holds them, in the form in which they arrived.

Applying a head never multiplies it out. Vectors and scores are NumPy arrays.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import xxhash
from jaxtyping import Float, Float32, Int, Int8, Int64
from torch import Tensor

from hyperfleet.errors import HeadLayoutError
from hyperfleet.head_codecs.formula import Answers, Run, linear, products, runs_of, winners
from hyperfleet.head_codecs.layout import HeadLayout

_Which = Int64[np.ndarray, " row"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BaseHead:
    """The static head of a model, which device and cloud both hold and which offsets are added to.

    Replies name the static head that they change: a device that added an offset to another one would
    silently give wrong answers.

    Attributes:
        layout: its shape.
        flat: its parameters in `HeadLayout` order.
        id: 16 hexadecimal digits, a hash of the parameters; equal on cloud and device.

    Raises:
        HeadLayoutError: the parameters are not those of a head of this layout.
    """

    layout: HeadLayout
    flat: Float32[Tensor, " param"]
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if self.flat.shape != (self.layout.num_params,):
            raise HeadLayoutError(
                f"a static head of {self.layout.num_classes} classes x {self.layout.hidden} hidden units has "
                f"{self.layout.num_params} parameters, got shape {tuple(self.flat.shape)}"
            )
        values = np.ascontiguousarray(self.flat.numpy(), dtype="<f4")
        object.__setattr__(self, "id", xxhash.xxh3_64_hexdigest(values.data))

    def scores(self, hidden: Float32[np.ndarray, "row hidden"]) -> Float32[np.ndarray, "row output"]:
        """Return W0 phi + b0 for each vector, in one product."""
        weight, bias = self.layout.split(self.flat.numpy()[None])
        return linear(weight, bias, hidden, [Run(slice(1), slice(len(hidden)), len(hidden))])


@runtime_checkable
class Heads(Protocol):
    """n heads of one layout."""

    @property
    def layout(self) -> HeadLayout:
        """Shape of each head."""
        ...

    def __len__(self) -> int:
        """Return the number of heads."""
        ...

    def scores(
        self, hidden: Float32[np.ndarray, "row hidden"], which: _Which | None = None
    ) -> Float32[np.ndarray, "row output"]:
        """Apply head `which[i]` to row i: P = W phi + b (equation 7).

        `which` must not decrease; None applies each head to one row.
        """
        ...

    def dense(self) -> Float32[Tensor, "head param"]:
        """Return full flat heads in float32, e.g. to load them into `nn.Linear`; a view where possible."""
        ...


def best_answer(
    heads: Heads,
    hidden: Float32[np.ndarray, "row hidden"],
    base_answer: Int[np.ndarray, " row"],
    which: _Which | None = None,
) -> Answers:
    """Apply heads as `Heads.scores` does; return the best class (int32) of each row and its score.

    A row with a score that is not finite gets its `base_answer` and the score NaN.
    """
    # `winners` finds what overflows.
    with np.errstate(over="ignore", invalid="ignore"):
        scores = heads.scores(hidden, which)
    return winners([(0, scores)], base_answer)


def _runs(which: _Which | None, num_rows: int) -> list[Run]:
    if which is None:
        return [Run(slice(num_rows), slice(num_rows), 1)]
    return runs_of(which)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DenseHeads:
    """Every weight and bias, float32, float16 or bfloat16; `base` is added if given."""

    layout: HeadLayout
    values: Float[Tensor, "head param"]
    base: BaseHead | None = None

    def __len__(self) -> int:
        return len(self.values)

    def scores(
        self, hidden: Float32[np.ndarray, "row hidden"], which: _Which | None = None
    ) -> Float32[np.ndarray, "row output"]:
        """Apply in float32: no CPU multiplies a matrix by a vector faster in half precision."""
        weight, bias = self.layout.split(self.values.float().numpy())
        scores = linear(weight, bias, hidden, _runs(which, len(hidden)))
        if self.base is not None:
            scores += self.base.scores(hidden)
        return scores

    def dense(self) -> Float32[Tensor, "head param"]:
        """Return the values themselves if they are full float32 heads."""
        values = self.values.float()
        return values if self.base is None else values + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowScaledHeads:
    """8-bit weights with one scale per class; `base` is added if given."""

    layout: HeadLayout
    weight: Int8[Tensor, "head output hidden"]
    scale: Float32[Tensor, "head output"]
    bias: Float32[Tensor, "head output"]
    base: BaseHead | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def scores(
        self, hidden: Float32[np.ndarray, "row hidden"], which: _Which | None = None
    ) -> Float32[np.ndarray, "row output"]:
        """Scale the products, not the weights."""
        own = slice(None) if which is None else which
        scores = products(self.weight.float().numpy(), hidden, _runs(which, len(hidden)))
        scores *= self.scale.numpy()[own]
        scores += self.bias.numpy()[own]
        if self.base is not None:
            scores += self.base.scores(hidden)
        return scores

    def dense(self) -> Float32[Tensor, "head param"]:
        """Scale the weights."""
        weight = self.weight.float() * self.scale[:, :, None]
        values = _flat(weight, self.bias)
        return values if self.base is None else values + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FactorHeads:
    """The static head, plus U V (n, C, r) x (n, r, H), plus a bias."""

    layout: HeadLayout
    up: Float[Tensor, "head output rank"]
    down: Float[Tensor, "head rank hidden"]
    bias: Float[Tensor, "head output"]
    base: BaseHead

    def __len__(self) -> int:
        return len(self.up)

    def scores(
        self, hidden: Float32[np.ndarray, "row hidden"], which: _Which | None = None
    ) -> Float32[np.ndarray, "row output"]:
        """W0 phi + U (V phi) + b."""
        own, runs = slice(None) if which is None else which, _runs(which, len(hidden))
        up, down, bias = (part.float().numpy() for part in (self.up, self.down, self.bias))
        scores = products(up, products(down, hidden, runs), runs)
        scores += self.base.scores(hidden)
        scores += bias[own]
        return scores

    def dense(self) -> Float32[Tensor, "head param"]:
        """Multiply the factors out and add the static head."""
        return _flat(self.up.float() @ self.down.float(), self.bias.float()) + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModulatedHeads:
    """The static head, with its input scaled and shifted per head."""

    layout: HeadLayout
    scale: Float32[Tensor, "head hidden"]
    shift: Float32[Tensor, "head hidden"]
    base: BaseHead

    def __len__(self) -> int:
        return len(self.scale)

    def scores(
        self, hidden: Float32[np.ndarray, "row hidden"], which: _Which | None = None
    ) -> Float32[np.ndarray, "row output"]:
        """W0 ((1 + scale) phi + shift) + b0."""
        own = slice(None) if which is None else which
        return self.base.scores((1 + self.scale.numpy()[own]) * hidden + self.shift.numpy()[own])

    def dense(self) -> Float32[Tensor, "head param"]:
        """Fold scale and shift into the static head's weights and bias."""
        num_weights = self.layout.num_weights
        weight = self.base.flat[:num_weights].unflatten(0, (self.layout.num_classes, self.layout.hidden))
        bias = self.base.flat[num_weights:] + self.shift @ weight.T
        return _flat(weight * (1 + self.scale)[:, None], bias)


def _flat(
    weight: Float[Tensor, "head output hidden"], bias: Float[Tensor, "head output"]
) -> Float[Tensor, "head param"]:
    values = weight.new_empty(len(weight), weight[0].numel() + bias.shape[1])
    values[:, : weight[0].numel()] = weight.flatten(1)
    values[:, weight[0].numel() :] = bias
    return values
