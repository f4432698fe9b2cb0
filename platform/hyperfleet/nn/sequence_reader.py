"""DUET's reader: a GRU over the features of all frames, read at its last step, and an MLP."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceReaderConfig:
    """Shape of the reader.

    Attributes:
        num_frames: features uploaded, 768 bytes each.
        hidden: width of the GRU and the MLP; 192 gives heads of the same payload as the other methods.
    """

    num_frames: int = 5
    hidden: int = FEATURE_DIM

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.hidden < 1:
            raise ConfigError(
                f"SequenceReaderConfig needs num_frames and hidden >= 1, got {self.num_frames}, {self.hidden}"
            )


class SequenceReader(nn.Module):
    """GRU(192 -> h), then Linear-Tanh-Linear (Lv et al., DUET, WWW 2023, ported from clicks to frames)."""

    def __init__(self, config: SequenceReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.gru = nn.GRU(FEATURE_DIM, config.hidden, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(config.hidden, config.hidden), nn.Tanh(), nn.Linear(config.hidden, config.hidden)
        )

    def forward(self, features: Float[Tensor, "sample frame 192"]) -> Float[Tensor, "sample hidden"]:
        """Return one vector per sample from the features of its frames, in order of time."""
        _, last = self.gru(features)
        read: Tensor = self.mlp(last[-1])
        return read
