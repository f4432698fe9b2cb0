"""Shape of a head and the order of its parameters."""

from dataclasses import dataclass

import numpy as np

from hyperfleet.errors import HeadLayoutError

HEAD_HIDDEN = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayout:
    """Shape of a generated head: one linear layer from `hidden` units to `num_classes` scores."""

    num_classes: int
    hidden: int = HEAD_HIDDEN

    @property
    def num_weights(self) -> int:
        """Number of weights, without the bias."""
        return self.num_classes * self.hidden

    @property
    def num_params(self) -> int:
        """Number of generated parameters: weights first, row by row, then the bias."""
        return self.num_classes * (self.hidden + 1)

    @property
    def num_bytes(self) -> int:
        """Size of one head in float32, in bytes (`num_params` x 4)."""
        return 4 * self.num_params

    def split(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """View flat heads (n, num_params) as weights (n, classes, hidden) and biases (n, classes).

        Raises:
            HeadLayoutError: the last axis does not hold `num_params` values.
        """
        if flat.ndim != 2 or flat.shape[1] != self.num_params:
            raise HeadLayoutError(
                f"a head of {self.num_classes} classes x {self.hidden} hidden units has {self.num_params} "
                f"parameters, got an array of shape {flat.shape}; use generator and device of the same model"
            )
        weight = flat[:, : self.num_weights].reshape(len(flat), self.num_classes, self.hidden)
        return weight, flat[:, self.num_weights :]
