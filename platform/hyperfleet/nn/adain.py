"""Adaptive instance normalisation of feature vectors."""

from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-5


def adain(
    content: Float[Tensor, "sample dim"], statistics: Float[Tensor, "sample dim"]
) -> Float[Tensor, "sample dim"]:
    """Give `content` the mean and standard deviation of `statistics`, sample by sample.

    Equation 16 of CDC-MMPG. A feature vector has no spatial axis, so the mean and the standard
    deviation run over its channels: two scalars a sample.
    """
    content_std = (content.var(dim=-1, keepdim=True, unbiased=False) + EPSILON).sqrt()
    statistics_std = (statistics.var(dim=-1, keepdim=True, unbiased=False) + EPSILON).sqrt()
    normalised = (content - content.mean(dim=-1, keepdim=True)) / content_std
    return statistics_std * normalised + statistics.mean(dim=-1, keepdim=True)
