"""AnchorFrame Distribution Reasoner (ADR): from one frame's feature to the clip's (CDC-MMPG, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM

EPSILON = 1e-5


def adain(
    content: Float[Tensor, "sample dim"], statistics: Float[Tensor, "sample dim"]
) -> Float[Tensor, "sample dim"]:
    """Give `content` the mean and standard deviation of `statistics`, sample by sample.

    Equation 16 of CDC-MMPG. A feature vector has no spatial axis, so the mean and the standard
    deviation run over its channels: two scalars per sample.
    """
    content_std = (content.var(dim=-1, keepdim=True, unbiased=False) + EPSILON).sqrt()
    statistics_std = (statistics.var(dim=-1, keepdim=True, unbiased=False) + EPSILON).sqrt()
    normalised = (content - content.mean(dim=-1, keepdim=True)) / content_std
    return statistics_std * normalised + statistics.mean(dim=-1, keepdim=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorReasonerConfig:
    """Sizes and interpretation of the ADR; the paper gives neither, so each choice is a field.

    Attributes:
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        latent: width of z.
        target: what the decoder must reconstruct: `global`, the mean feature of the frames (what
            inference needs), or `self`, the encoded feature (the literal autoencoder).
        direction: which operand of the renormalisation is the content. `anchor_to_decoded` is equation 16
            as printed and changes two scalars of the anchor only; `decoded_to_anchor` gives the decoded
            feature the anchor's statistics, and loses what the latent cannot hold (docs/decisions/0006).
        inference: `mean` decodes the mean of q(z|x), so that one feature always gives one head;
            `sample` draws z.
        kl_weight: weight of equation 14; 1 makes the posterior collapse at this size.
        anchor_weight: lambda of equation 17.
    """

    hidden: tuple[int, ...] = (512, 256)
    latent: int = 64
    target: Literal["global", "self"] = "global"
    direction: Literal["anchor_to_decoded", "decoded_to_anchor"] = "anchor_to_decoded"
    inference: Literal["mean", "sample"] = "mean"
    kl_weight: float = 1e-2
    anchor_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.latent < 1 or not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"AnchorReasonerConfig needs positive widths, got hidden={self.hidden}, latent={self.latent}"
            )
        if self.kl_weight < 0 or self.anchor_weight < 0:
            raise ConfigError(
                f"AnchorReasonerConfig weights must be >= 0, got kl_weight={self.kl_weight}, "
                f"anchor_weight={self.anchor_weight}"
            )


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class VariationalAutoencoder(nn.Module):
    """MLP autoencoder with a Gaussian latent (equations 8-10 and 12-13)."""

    def __init__(self, width: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        self.encoder = _mlp((width, *hidden, 2 * latent))
        self.decoder = _mlp((latent, *reversed(hidden), width))

    def encode(
        self, features: Float[Tensor, "sample dim"]
    ) -> tuple[Float[Tensor, "sample latent"], Float[Tensor, "sample latent"]]:
        """Return mean and log variance of q(z|x) (equation 8)."""
        mean, log_variance = self.encoder(features).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, latent: Float[Tensor, "sample latent"]) -> Float[Tensor, "sample dim"]:
        """Return the decoded feature (equation 10)."""
        decoded: Tensor = self.decoder(latent)
        return decoded


def sample_latent(
    mean: Float[Tensor, "sample latent"], log_variance: Float[Tensor, "sample latent"]
) -> Float[Tensor, "sample latent"]:
    """Draw z = mean + std * noise (equation 9)."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def kl_divergence(
    mean: Float[Tensor, "sample latent"], log_variance: Float[Tensor, "sample latent"]
) -> Float[Tensor, ""]:
    """Mean over samples of KL(q(z|x) || N(0, I)), summed over the latent (equation 14)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=-1).mean()


def squared_error(
    prediction: Float[Tensor, "sample dim"], target: Float[Tensor, "sample dim"]
) -> Float[Tensor, ""]:
    """Squared error summed over channels, mean over samples: on the KL's scale, so that neither dominates."""
    return (prediction - target).square().sum(dim=-1).mean()


class AnchorReasoner(nn.Module):
    """Turn the anchor frame's feature into an estimate of the clip's feature (equations 8-11)."""

    def __init__(self, config: AnchorReasonerConfig) -> None:
        super().__init__()
        self.config = config
        self.vae = VariationalAutoencoder(FEATURE_DIM, config.hidden, config.latent)

    def _renormalise(
        self, anchor: Float[Tensor, "sample 192"], decoded: Float[Tensor, "sample 192"]
    ) -> Float[Tensor, "sample 192"]:
        if self.config.direction == "decoded_to_anchor":
            return adain(decoded, anchor)
        return adain(anchor, decoded)

    def forward(self, anchor: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample 192"]:
        """Return the renormalised feature F' that replaces F_g in the generator's input (equation 11)."""
        mean, log_variance = self.vae.encode(anchor)
        latent = sample_latent(mean, log_variance) if self.config.inference == "sample" else mean
        return self._renormalise(anchor, self.vae.decode(latent))

    def losses(
        self, anchor: Float[Tensor, "sample 192"], clip: Float[Tensor, "sample 192"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the terms of stage 1, already weighted: KL, reconstruction and renormalisation (14, 15, 17).

        `clip` is F_g, the mean feature over the frames; `anchor` is one frame's.
        """
        source = clip if self.config.target == "self" else anchor
        mean, log_variance = self.vae.encode(source)
        decoded = self.vae.decode(sample_latent(mean, log_variance))
        renormalised = self._renormalise(anchor, decoded)
        return {
            "kl": self.config.kl_weight * kl_divergence(mean, log_variance),
            "reconstruction": squared_error(decoded, clip),
            "renormalisation": squared_error(renormalised, clip)
            + self.config.anchor_weight * squared_error(renormalised, anchor),
        }
