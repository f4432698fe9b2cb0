"""Generator as arrays, so that many processes can map one copy of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.head_codecs import HeadLayout
from hyperfleet.head_codecs.frame import read_only
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SharedGenerator:
    """Parts of a generator; put them into Ray's object store once and open them in every process.

    Attributes:
        config: configuration of the hypernetwork.
        layout: shape of its heads.
        arrays: weights and buffers by name; read-only where they are mapped.
    """

    config: HeadGeneratorConfig
    layout: HeadLayout
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, module: HeadGenerator) -> "SharedGenerator":
        """Take a loaded generator apart; its last layer is copied into the order that `Emitter` reads."""
        arrays = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
        emitter = next(name for name, value in module.named_parameters() if value is module.emitter.weight)
        arrays[emitter] = np.asfortranarray(arrays[emitter])
        return cls(config=module.config, layout=module.layout, arrays=arrays)

    def open(self, *, num_threads: int = 1, packed: bool = False) -> ParameterGenerator:
        """Return a generator around the arrays, without copying them.

        Args:
            num_threads: threads for one call.
            packed: copy the last layer into the order for batches, see `Emitter`.

        Raises:
            ConfigError: fewer than one thread.
        """
        with torch.device("meta"):
            module = HeadGenerator(self.config, self.layout)
        module.load_state_dict({name: _tensor(array) for name, array in self.arrays.items()}, assign=True)
        return ParameterGenerator(module.requires_grad_(False), num_threads=num_threads, packed=packed)


def _tensor(array: np.ndarray) -> Tensor:
    if not array.size or not array.ndim:
        return torch.from_numpy(array.copy())
    return read_only(array) if array.flags.c_contiguous else read_only(array.T).T
