"""Last layer of a hypernetwork: 28 million weights for 1,501 answers, and nearly all of its compute time."""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from hyperfleet.errors import ConfigError

# With fewer rows, the product is limited by reading the weights, which the plain one does at memory speed.
_LEAST_PACKED_ROWS = 3
# Number of rows that the packed order is optimized for.
_TYPICAL_ROWS = 32
_LARGEST_HALF = torch.finfo(torch.float16).max


class Emitter:
    """numbers = W x + b, fast for one row and for many.

    One row is fastest with inputs outermost, many rows with weights packed by oneDNN: 2.5 times as fast as
    `nn.Linear` at batch 1 and 1.8 times at 64 (benchmarks/generator_service.py). Both copies are kept, unless
    processes share the weights.

    Args:
        weight: (numbers, embed), as in `nn.Linear`.
        bias: (numbers).
        packed: keep a second copy of the weights in the order in which oneDNN multiplies batches fastest.
    """

    def __init__(
        self, weight: Float[Tensor, "number embed"], bias: Float[Tensor, " number"], *, packed: bool
    ) -> None:
        # No copy if they already have this order, e.g. in shared memory.
        self.weight = weight.detach().T.contiguous()
        self.bias = bias.detach()
        self._packed = _pack(weight.detach()) if packed else None

    def pack(self) -> None:
        """Make the packed copy if there is none."""
        if self._packed is None:
            self._packed = _pack(self.weight.T)

    def __call__(self, embedded: Float[Tensor, "head embed"]) -> Float[Tensor, "head number"]:
        """Return the numbers of one head per row."""
        if self._packed is None or len(embedded) < _LEAST_PACKED_ROWS:
            return torch.addmm(self.bias, embedded, self.weight)
        numbers: Tensor = torch.ops.mkldnn._linear_pointwise(
            embedded, self._packed, self.bias, "none", [], ""
        )
        return numbers

    def part(
        self, embedded: Float[Tensor, "head embed"], which: slice, out: Float32[np.ndarray, "head part"]
    ) -> None:
        """Write the numbers `which` of one head per row into `out`, in NumPy's threads.

        Reads the plain weights: for hundreds of heads OpenBLAS is as fast on them as on any copy, and 10 to
        20 % faster than torch's MKL or oneDNN with packed weights.
        """
        np.matmul(embedded.numpy(), self.weight.numpy()[:, which], out=out)
        out += self.bias.numpy()[which]


class HalfEmitter:
    """numbers = W x + b with W rounded to float16; x, b, sums and numbers are float32.

    FBGEMM widens the weights in registers. Few rows are limited by memory bandwidth and now read half the
    bytes; many rows take as long as in float32 (benchmarks/generator_service.py shows both, and the error).
    bfloat16 is fast in PyTorch only on processors with instructions for it, and rounds eight times as
    coarsely.

    Args:
        weight: (numbers, embed), as in `nn.Linear`.
        bias: (numbers).

    Raises:
        ConfigError: PyTorch or the processor lacks this product, or a weight is too large for float16.
    """

    def __init__(self, weight: Float[Tensor, "number embed"], bias: Float[Tensor, " number"]) -> None:
        largest = float(weight.abs().max())
        # NaN passes; `ParameterGenerator.check` finds it.
        if largest > _LARGEST_HALF:
            raise ConfigError(
                f"weights='fp16' holds values up to {_LARGEST_HALF:.0f}, the generator's last layer has "
                f"{largest:.3g}; use weights='fp32'"
            )
        try:
            self._packed = torch.ops.quantized.linear_prepack_fp16(
                weight.detach().contiguous(), bias.detach()
            )
        except (AttributeError, RuntimeError) as error:
            raise ConfigError(
                "weights='fp16' needs PyTorch with FBGEMM and a processor with AVX2, and this machine lacks "
                f"one of them ({error}); use weights='fp32'"
            ) from error

    def __call__(self, embedded: Float[Tensor, "head embed"]) -> Float[Tensor, "head number"]:
        """Return the numbers of one head per row."""
        numbers: Tensor = torch.ops.quantized.linear_dynamic_fp16(embedded, self._packed)
        return numbers


def _pack(weight: Float[Tensor, "number embed"]) -> Tensor | None:
    # torch's compiler uses these private operators for the same purpose. The public API (torch.utils.mkldnn)
    # copies every head once more. Without them the plain product is used.
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(
        hasattr(torch.ops.mkldnn, name) for name in operators
    ):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_ROWS)
    return packed
