"""From uploaded features to heads: what the cloud does with a request, without any server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hyperfleet.bundle import load_generator
from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.messages import FEATURE_DIM, HeadLayout, HeadRequest
from hyperfleet.nn import HeadGenerator

# 32 heads of 1,501 classes are 18 MiB. Above 32 MiB glibc gives every allocation back to the kernel and
# faults it in again, which halves the rate; below 32 rows the weights are read for too few heads.
CHUNK_ROWS = 32


@contextlib.contextmanager
def _torch_threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ParameterGenerator:
    """Generates heads with a trained `HeadGenerator` on the CPU.

    Args:
        module: the generator, with its weights.
        num_threads: threads torch may use for one call.

    Raises:
        ConfigError: fewer than one thread.
    """

    def __init__(self, module: HeadGenerator, *, num_threads: int = 1) -> None:
        if num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1, got {num_threads}")
        self._module = module.eval()
        self._num_threads = num_threads

    @classmethod
    def from_bundle(cls, bundle_dir: Path, *, num_threads: int = 1) -> "ParameterGenerator":
        """Load the generator of a bundle folder.

        Raises:
            CheckpointError: no bundle there, one without a generator, or other weights than its config.
        """
        return cls(load_generator(bundle_dir), num_threads=num_threads)

    @property
    def layout(self) -> HeadLayout:
        """Shape of each generated head."""
        return self._module.layout

    def generate(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Generate one head for each feature (n, 192), float32.

        Returns:
            Weights (n, classes, hidden) and biases (n, classes), views into one array of flat heads.

        Raises:
            FeatureError: wrong shape or type, or a value that is not finite.
        """
        # torch wants to own writable memory, which a view into a request's bytes is not.
        anchors = torch.from_numpy(
            np.require(HeadRequest(features=features).features, requirements=["C", "W"])
        )
        # Both settings belong to the calling thread, so they are made here and not once at the start.
        with _torch_threads(self._num_threads), torch.inference_mode():
            if len(anchors) <= CHUNK_ROWS:
                flat = self._module(anchors)
            else:
                flat = torch.empty(len(anchors), self.layout.num_params)
                for start in range(0, len(anchors), CHUNK_ROWS):
                    chunk = slice(start, start + CHUNK_ROWS)
                    flat[chunk] = self._module(anchors[chunk])
        return self.layout.split(flat.numpy())

    def check(self) -> None:
        """Generate one head and look whether it can be used.

        Raises:
            ServiceError: the head holds values that are not finite.
        """
        weight, bias = self.generate(np.zeros((1, FEATURE_DIM), dtype=np.float32))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ServiceError(
                "the generator makes heads with NaN or infinite values; its weights are damaged or training "
                "diverged: serve another version"
            )
