"""What a device holds: the encoder, the static trunk, and a head that the cloud can replace."""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM, HEAD_HIDDEN, HeadLayout
from hyperfleet.nn.encoder import AllInOneEncoder
from hyperfleet.nn.encoder_config import EncoderConfig

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class DeviceModel(nn.Module):
    """Lightweight multi-modal model on the device: encoder, trunk (pooler, 192 -> 96) and static head.

    With the BERT vocabulary and All-in-One-Ti it has the papers' D-Param: 11,595,421 parameters for
    1,501 classes.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"a device model needs at least 2 classes, got {num_classes}")
        self.layout = HeadLayout(num_classes=num_classes)
        self.encoder = AllInOneEncoder(config)
        self.pooler = nn.Linear(FEATURE_DIM, FEATURE_DIM)
        self.trunk = nn.Sequential(
            nn.Dropout(config.head_dropout),
            nn.Linear(FEATURE_DIM, HEAD_HIDDEN),
            nn.LayerNorm(HEAD_HIDDEN),
            nn.GELU(),
        )
        self.head = nn.Linear(HEAD_HIDDEN, num_classes)
        self.register_buffer("pixel_mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)

    def encode(
        self,
        frames: UInt8[Tensor, "clip frame height width 3"],
        token_ids: Int[Tensor, "clip word"],
        token_mask: Bool[Tensor, "clip word"],
    ) -> Float[Tensor, "clip frame 192"]:
        """Return the fused feature of each frame, F_m, from raw RGB frames and a tokenised question."""
        pixels = frames.movedim(-1, 2).to(self.pixel_mean.dtype) / 255
        features: Tensor = self.encoder((pixels - self.pixel_mean) / self.pixel_std, token_ids, token_mask)
        return features

    def hidden(self, clip: Float[Tensor, "clip 192"]) -> Float[Tensor, "clip 96"]:
        """Return phi(F_g): what the head, static or generated, is applied to (equation 7)."""
        hidden: Tensor = self.trunk(torch.tanh(self.pooler(clip)))
        return hidden

    def flat_head(self) -> Float[Tensor, " param"]:
        """Return the static head as one vector in `HeadLayout` order: weight rows, then bias."""
        return torch.cat([self.head.weight.flatten(), self.head.bias])


def apply_heads(
    flat: Float[Tensor, "sample param"], hidden: Float[Tensor, "sample hidden"], layout: HeadLayout
) -> Float[Tensor, "sample class"]:
    """Apply each sample's own head to its hidden vector: P = W phi(F_g) + b (equation 7)."""
    num_weights = layout.num_classes * layout.hidden
    weight = flat[:, :num_weights].unflatten(1, (layout.num_classes, layout.hidden))
    return torch.einsum("nch,nh->nc", weight, hidden) + flat[:, num_weights:]
