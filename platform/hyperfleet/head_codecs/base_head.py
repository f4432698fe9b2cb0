"""The static head of a model, which device and cloud both hold and offsets are added to."""

from dataclasses import dataclass, field

import numpy as np
import xxhash
from jaxtyping import Float32
from torch import Tensor

from hyperfleet.errors import HeadLayoutError
from hyperfleet.head_codecs.layout import HeadLayout


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BaseHead:
    """A static head and its name.

    A device that adds an offset to another static head than the cloud meant would answer nonsense in
    silence, so replies name the head that they change.

    Attributes:
        layout: its shape.
        flat: its parameters in `HeadLayout` order.
        id: 16 hexadecimal digits made of the parameters, equal on cloud and device.

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

    def scores(self, hidden: Float32[np.ndarray, "head hidden"]) -> Float32[np.ndarray, "head output"]:
        """Return W0 phi + b0 for each vector: one product for all heads that are offsets to this one."""
        weight, bias = self.layout.split(self.flat.numpy()[None])
        scores: np.ndarray = hidden @ weight[0].T
        scores += bias[0]
        return scores
