"""Heads as a device holds them: in the form in which they came, applied without multiplying them out.

One vector each: a head is made for one sample. Arrays come in and go out as NumPy, which is faster than
torch on one head.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int8
from torch import Tensor

from hyperfleet.head_codecs.base_head import BaseHead
from hyperfleet.head_codecs.layout import HeadLayout


@runtime_checkable
class Heads(Protocol):
    """n heads of one layout."""

    @property
    def layout(self) -> HeadLayout:
        """Shape of each."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """Apply each head to its own vector: P = W phi + b (equation 7)."""
        ...

    def dense(self) -> Float32[Tensor, "head param"]:
        """Return whole flat heads in float32, e.g. to load them into `nn.Linear`; a view if they are that."""
        ...


def _apply(
    weight: Float32[np.ndarray, "head output hidden"],
    bias: Float32[np.ndarray, "head output"],
    hidden: Float32[np.ndarray, "head hidden"],
) -> Float32[np.ndarray, "head output"]:
    # Microseconds a head, one thread, 32 heads of 1,501 classes: loop 18.5; np.matmul 22.2 and torch.bmm of
    # row vectors 23.6 (of column vectors: 175).
    scores: np.ndarray = np.matmul(weight, hidden[:, :, None])[:, :, 0] + bias
    return scores


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DenseHeads:
    """Every weight and bias, float32, float16 or bfloat16; `base` is added if there is one."""

    layout: HeadLayout
    values: Float[Tensor, "head param"]
    base: BaseHead | None = None

    def __len__(self) -> int:
        return len(self.values)

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """Apply in float32: no CPU multiplies a matrix by a vector faster in half precision."""
        own = _apply(*self.layout.split(self.values.float().numpy()), hidden)
        return own if self.base is None else own + self.base.scores(hidden)

    def dense(self) -> Float32[Tensor, "head param"]:
        """Return the values as they are if they are whole float32 heads."""
        values = self.values.float()
        return values if self.base is None else values + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowScaledHeads:
    """8-bit weights with one scale a row; `base` is added if there is one."""

    layout: HeadLayout
    weight: Int8[Tensor, "head output hidden"]
    scale: Float32[Tensor, "head output"]
    bias: Float32[Tensor, "head output"]
    base: BaseHead | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """Scale the products, not the weights."""
        own: np.ndarray = np.matmul(self.weight.float().numpy(), hidden[:, :, None])[:, :, 0]
        own *= self.scale.numpy()
        own += self.bias.numpy()
        return own if self.base is None else own + self.base.scores(hidden)

    def dense(self) -> Float32[Tensor, "head param"]:
        """Scale the weights."""
        weight = self.weight.float() * self.scale[:, :, None]
        values = _flat(weight, self.bias)
        return values if self.base is None else values + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FactorHeads:
    """The static head, plus U V (n, C, r) x (n, r, H), plus a bias; never multiplied out to be applied."""

    layout: HeadLayout
    up: Float[Tensor, "head output rank"]
    down: Float[Tensor, "head rank hidden"]
    bias: Float[Tensor, "head output"]
    base: BaseHead

    def __len__(self) -> int:
        return len(self.up)

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """W0 phi + U (V phi) + b."""
        inner = np.matmul(self.down.float().numpy(), hidden[:, :, None])
        scores = self.base.scores(hidden)
        scores += np.matmul(self.up.float().numpy(), inner)[:, :, 0]
        scores += self.bias.float().numpy()
        return scores

    def dense(self) -> Float32[Tensor, "head param"]:
        """Multiply the factors out and add the static head."""
        return _flat(self.up.float() @ self.down.float(), self.bias.float()) + self.base.flat


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModulatedHeads:
    """The static head of an input that is scaled and shifted for each head."""

    layout: HeadLayout
    scale: Float32[Tensor, "head hidden"]
    shift: Float32[Tensor, "head hidden"]
    base: BaseHead

    def __len__(self) -> int:
        return len(self.scale)

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """W0 ((1 + scale) phi + shift) + b0."""
        return self.base.scores((1 + self.scale.numpy()) * hidden + self.shift.numpy())

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
