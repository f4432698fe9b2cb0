"""Losses of StableSynthNet's Driver Contrastive Training and Offset-Driver Separation (equations 5 to 8)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

_CLAMP = 1 - 1e-6


def contrastive_losses(
    features: Float[Tensor, "sample 192"],
    categories: Int[Tensor, " sample"],
    *,
    temperature: float,
    margin: float,
) -> tuple[Float[Tensor, " sample"], Bool[Tensor, " sample"]]:
    """Return l_i = -log f_pos / (f_pos + f_neg) of each sample, and which samples have a positive (5, 6).

    `margin` (radians) is added to the angle between positives; where the sum would exceed pi, the
    cosine keeps falling linearly. Samples without category (-1) are neither positives nor negatives.
    Losses of samples without a positive are 0 and must not be counted.
    """
    unit = functional.normalize(features, dim=1)
    cosine = (unit @ unit.T).clamp(-_CLAMP, _CLAMP)
    known = categories >= 0
    valid = known[:, None] & known[None]
    same = (categories[:, None] == categories[None]) & valid
    itself = torch.eye(len(categories), dtype=torch.bool, device=features.device)
    positive, negative = same & ~itself, valid & ~same
    sine = (1 - cosine.square()).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    shifted = torch.where(cosine < -math.cos(margin), cosine - margin * math.sin(margin), shifted)
    counted = positive.any(dim=1)

    def log_sum(scores: Tensor, chosen: Tensor) -> Tensor:
        # A finite stand-in for -inf keeps the gradient of empty rows zero instead of NaN.
        total: Tensor = (scores / temperature).masked_fill(~chosen, -1e9).logsumexp(dim=1)
        return total

    pull = log_sum(shifted, positive)
    both = torch.logaddexp(pull, log_sum(cosine, negative))
    losses: Tensor = torch.where(counted, both - pull, 0.0)
    return losses, counted


def risk_variance(
    losses: Float[Tensor, " sample"], categories: Int[Tensor, " sample"], counted: Bool[Tensor, " sample"]
) -> Float[Tensor, ""]:
    """Return the variance of the losses within each sample's category, averaged over samples (8).

    Equations 5 and 8 both sum over samples. Both terms are means here, which keeps their printed ratio.
    """
    losses, categories = losses[counted], categories[counted]
    if len(losses) == 0:
        return losses.sum()
    _, place, count = categories.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros_like(count, dtype=losses.dtype).index_add(0, place, losses) / count
    # Sizes times variances are the squared deviations, so their mean is that of the samples' variances.
    variance: Tensor = (losses - mean[place]).square().mean()
    return variance
