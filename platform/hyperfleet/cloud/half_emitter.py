"""The last layer of a hypernetwork with its weights in half precision: half the memory to read a batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperfleet.errors import ConfigError

_LARGEST = torch.finfo(torch.float16).max


class HalfEmitter:
    """numbers = W x + b with W rounded to float16; x, b, sums and numbers are float32.

    FBGEMM widens the weights in registers. A few rows wait for memory, which so has half as much to bring;
    many rows take as long as with float32 (benchmarks/generator_service.py shows both, and the error). Not
    bfloat16: PyTorch multiplies it fast only on processors with instructions for it, and it rounds eight
    times as coarsely.

    Args:
        weight: (numbers, embed), as `nn.Linear` has it.
        bias: (numbers).

    Raises:
        ConfigError: this PyTorch or processor has no such product, or a weight is too large for float16.
    """

    def __init__(self, weight: Float[Tensor, "number embed"], bias: Float[Tensor, " number"]) -> None:
        largest = float(weight.abs().max())
        # NaN passes: `ParameterGenerator.check` is for it.
        if largest > _LARGEST:
            raise ConfigError(
                f"weights='fp16' holds values up to {_LARGEST:.0f}, the generator's last layer has "
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
        """Return the numbers of one head for each row."""
        numbers: Tensor = torch.ops.quantized.linear_dynamic_fp16(embedded, self._packed)
        return numbers
