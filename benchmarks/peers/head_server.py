"""Generator shared by every server of benchmarks/service_peers.py: heads in batches.

Settings come from the environment: some of these servers parse the command line themselves, and some start
their workers as new processes.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import gelu, layer_norm, linear

from hyperfleet.cloud.emitter import Emitter

HOST = "127.0.0.1"
PATH = "/v1/generate/open-ended-qa"
OCTETS = "application/octet-stream"
FEATURE_DIM = 192
PORT = int(os.environ.get("PEER_PORT", "0"))
MAX_BATCH = int(os.environ.get("PEER_MAX_BATCH", "64"))
# Longest wait of a partial batch, for servers that have this setting.
PAUSE_MS = 1


class HeadBatch:
    """The generator: the same product on the same packed weights as our service, in one thread."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        layer = torch.load(os.environ["PEER_LAYER"], weights_only=True)
        self._dtype = layer["dtype"]
        self._hidden = (layer["hidden_weight"], layer["hidden_bias"]) if "hidden_weight" in layer else None
        self._emit = Emitter(layer["weight"], layer["bias"], packed=True)

    def generate(self, features: np.ndarray) -> np.ndarray:
        """Return one row of numbers per feature (n, 192), float32."""
        # The frameworks call from their own threads, and each thread has its own grad mode.
        with torch.inference_mode():
            anchors = torch.from_numpy(features)
            if not anchors.isfinite().all():
                raise ValueError("a feature is not finite")
            embedded = layer_norm(anchors, (FEATURE_DIM,))
            if self._hidden is not None:
                embedded = gelu(linear(embedded, *self._hidden))
                embedded = layer_norm(embedded, embedded.shape[1:])
            numbers: np.ndarray = self._emit(embedded).to(self._dtype).numpy()
            return numbers

    def __call__(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Return the replies to the requests of one batch."""
        features = np.frombuffer(bytearray().join(bodies), dtype="<f4").reshape(-1, FEATURE_DIM)
        return [row.tobytes() for row in self.generate(features)]
