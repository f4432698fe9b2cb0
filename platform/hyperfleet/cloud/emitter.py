"""The last layer of a hypernetwork: 28 million of its weights for 1,501 answers, and all of its time."""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

# Below, reading the weights once is all the time there is, and the plain product reads them as fast as memory
# gives them.
_LEAST_PACKED_ROWS = 3
# What the packed order is chosen for.
_TYPICAL_ROWS = 32


class Emitter:
    """numbers = W x + b, fast for one row as for many.

    One row is read fastest from weights with their inputs outermost, many rows from weights that oneDNN
    packed: 2.5 times `nn.Linear` at batch 1 and 1.8 times at 64 (benchmarks/generator_service.py). So both
    are kept, unless the weights are shared with other processes.

    Args:
        weight: (numbers, embed), as `nn.Linear` has it.
        bias: (numbers).
        packed: keep a second copy of the weights in the order that oneDNN multiplies batches fastest in.
    """

    def __init__(
        self, weight: Float[Tensor, "number embed"], bias: Float[Tensor, " number"], *, packed: bool
    ) -> None:
        # No copy if they come so, e.g. out of shared memory.
        self.weight = weight.detach().T.contiguous()
        self.bias = bias.detach()
        self._packed = _pack(weight.detach()) if packed else None

    def pack(self) -> None:
        """Make the second copy now, if there is none."""
        if self._packed is None:
            self._packed = _pack(self.weight.T)

    def __call__(self, embedded: Float[Tensor, "head embed"]) -> Float[Tensor, "head number"]:
        """Return the numbers of one head for each row."""
        if self._packed is None or len(embedded) < _LEAST_PACKED_ROWS:
            return torch.addmm(self.bias, embedded, self.weight)
        numbers: Tensor = torch.ops.mkldnn._linear_pointwise(
            embedded, self._packed, self.bias, "none", [], ""
        )
        return numbers

    def part(
        self, embedded: Float[Tensor, "head embed"], which: slice, out: Float32[np.ndarray, "head part"]
    ) -> None:
        """Write the numbers `which` of one head for each row into `out`, in numpy's threads.

        From the plain weights, wherever they lie: for hundreds of heads OpenBLAS is as fast from them as from
        any copy, and multiplies 10 to 20 % faster here than torch's MKL or oneDNN with packed weights.
        """
        np.matmul(embedded.numpy(), self.weight.numpy()[:, which], out=out)
        out += self.bias.numpy()[which]


def _pack(weight: Float[Tensor, "number embed"]) -> Tensor | None:
    # torch's compiler uses these operators for the same purpose. They are not public, and the public way
    # (torch.utils.mkldnn) copies every head once more; without them the plain product remains.
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(
        hasattr(torch.ops.mkldnn, name) for name in operators
    ):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_ROWS)
    return packed
