"""Model of a device: the encoder, the static trunk, and a head that the cloud can replace."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM, HEAD_HIDDEN, HeadLayout
from hyperfleet.nn.encoder import AllInOneEncoder
from hyperfleet.nn.encoder_config import EncoderConfig

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


# Layers after the encoder: a classifier of answers, a score per candidate, or a shared embedding.
Readout = Literal["answers", "candidates", "embedding"]


def head_layout(num_outputs: int, readout: Readout) -> HeadLayout:
    """Return the shape of a readout's head."""
    return HeadLayout(num_classes=num_outputs, hidden=HEAD_HIDDEN if readout == "answers" else FEATURE_DIM)


class DeviceModel(nn.Module):
    """Lightweight multi-modal model on the device: encoder, static trunk, and the head that can be replaced.

    `answers` has the trunk pooler, 192 -> 96 and a head of `num_outputs` classes; with the BERT
    vocabulary and All-in-One-Ti that is the papers' D-Param, 11,595,421 parameters for 1,501 classes.
    `candidates` has the pooler and All-in-One's `rank_output` (192 -> 1) as head, beside the `itm_score`
    it is copied from (11,431,683 parameters). `embedding` projects video (the head) and text each to
    `num_outputs` dimensions.

    Raises:
        ConfigError: `num_outputs` that the readout cannot have.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig, num_outputs: int, readout: Readout = "answers") -> None:
        super().__init__()
        if (num_outputs < 2) != (readout == "candidates") or num_outputs < 1:
            raise ConfigError(
                f"a device model of {readout} needs {'1' if readout == 'candidates' else '2 or more'} "
                f"outputs, got {num_outputs}"
            )
        self.readout = readout
        self.layout = head_layout(num_outputs, readout)
        self.encoder = AllInOneEncoder(config)
        if readout != "embedding":
            self.pooler = nn.Linear(FEATURE_DIM, FEATURE_DIM)
        if readout == "answers":
            self.trunk = nn.Sequential(
                nn.Dropout(config.head_dropout),
                nn.Linear(FEATURE_DIM, HEAD_HIDDEN),
                nn.LayerNorm(HEAD_HIDDEN),
                nn.GELU(),
            )
        self.head = nn.Linear(self.layout.hidden, num_outputs)
        if readout == "candidates":
            self.itm_score = nn.Linear(FEATURE_DIM, 2)
        if readout == "embedding":
            self.text_projection = nn.Linear(FEATURE_DIM, num_outputs)
        self.register_buffer("pixel_mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)

    def pixels(self, frames: UInt8[Tensor, "clip frame height width 3"]) -> Float[Tensor, "clip frame 3 h w"]:
        """Return raw RGB frames as the encoder's input: channels first, ImageNet mean and deviation."""
        scaled = frames.movedim(-1, 2).to(self.pixel_mean.dtype) / 255
        return (scaled - self.pixel_mean) / self.pixel_std

    def encode(
        self,
        frames: UInt8[Tensor, "clip frame height width 3"],
        token_ids: Int[Tensor, "clip word"],
        token_mask: Bool[Tensor, "clip word"],
    ) -> Float[Tensor, "clip frame 192"]:
        """Return the fused feature of each frame, F_m, from raw RGB frames and a tokenized question."""
        features: Tensor = self.encoder(self.pixels(frames), token_ids, token_mask)
        return features

    def encode_candidates(
        self,
        frames: UInt8[Tensor, "clip frame height width 3"],
        token_ids: Int[Tensor, "clip candidate word"],
        token_mask: Bool[Tensor, "clip candidate word"],
    ) -> Float[Tensor, "clip candidate frame 192"]:
        """Return F_m of each clip with each of its candidate texts."""
        return self.encoder.fuse_candidates(self.pixels(frames), token_ids, token_mask)

    def hidden(self, clip: Float[Tensor, "*clip 192"]) -> Float[Tensor, "*clip hidden"]:
        """Return phi(F_g): what the head, static or generated, is applied to (equation 7)."""
        if self.readout == "embedding":
            return clip
        pooled = torch.tanh(self.pooler(clip))
        hidden: Tensor = self.trunk(pooled) if self.readout == "answers" else pooled
        return hidden

    def flat_head(self) -> Float[Tensor, " param"]:
        """Return the static head as one vector in `HeadLayout` order: weight rows, then bias."""
        return torch.cat([self.head.weight.flatten(), self.head.bias])
