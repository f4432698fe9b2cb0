"""Template-Driver Extraction: one template per category, fused with each sample (StableSynthNet)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM
from hyperfleet.nn.anchor_reasoner import EPSILON, adain

_TINY = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateBankConfig:
    """Size and interpretation of the template space; the paper publishes none of its hyperparameters.

    Attributes:
        num_categories: number of templates; 0 until training sets it from the data set.
        selection: choice of a sample's template without its label. `soft` mixes all seen templates by
            softmax of their cosine over `temperature`, `nearest` takes the most similar one.
        temperature: tau of the soft selection.
        renormalise: operands of equation 11. `template_to_sample` gives the template the sample's mean and
            deviation, as the text says; `sample_to_template` is the printed formula with its swapped
            symbols corrected.
        fuse_weight: lambda of equation 12.
        update: `bounded` moves a template towards the mean by at most the whole way; `literal` is equation
            10, which shrinks templates and can diverge. It leaves out categories with fewer than two
            losses in the batch: their variance is undefined.
        momentum: beta of equation 10.
        speed: gamma of equation 10.
        follows: templates keep following the encoder while the generator is trained (no gradient);
            the paper freezes them after their own stage.
    """

    num_categories: int = 0
    selection: Literal["soft", "nearest"] = "soft"
    temperature: float = 0.1
    renormalise: Literal["template_to_sample", "sample_to_template"] = "template_to_sample"
    fuse_weight: float = 0.1
    update: Literal["bounded", "literal"] = "bounded"
    momentum: float = 0.9
    speed: float = 1.0
    follows: bool = False

    def __post_init__(self) -> None:
        if self.num_categories < 0:
            raise ConfigError(f"TemplateBankConfig.num_categories must be >= 0, got {self.num_categories}")
        for name in ("temperature", "speed"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"TemplateBankConfig.{name} must be > 0, got {getattr(self, name)}")
        for name in ("fuse_weight", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"TemplateBankConfig.{name} must be in 0..1, got {getattr(self, name)}")


class TemplateBank(nn.Module):
    """Templates P (category x 192), learned by moving averages, no parameters.

    Raises:
        ConfigError: the number of categories is not known yet.
    """

    templates: Tensor
    seen: Tensor

    def __init__(self, config: TemplateBankConfig) -> None:
        super().__init__()
        if config.num_categories < 1:
            raise ConfigError(
                f"a template bank needs at least 1 category, got {config.num_categories}; build the model "
                "for a data set"
            )
        self.config = config
        self.register_buffer("templates", torch.zeros(config.num_categories, FEATURE_DIM))
        self.register_buffer("seen", torch.zeros(config.num_categories, dtype=torch.bool))

    @property
    def usable(self) -> Bool[Tensor, " category"]:
        """Templates that were seen and whose length is finite: `literal` updates can diverge."""
        return self.seen & self.templates.square().sum(dim=1).isfinite()

    def select(self, feature: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample category"]:
        """Return the weight of each template for each sample, found from the feature alone."""
        # Zeros, because a gradient of zero times NaN is NaN.
        templates = self.templates.masked_fill(~self.usable[:, None], 0)
        cosine = functional.normalize(feature, dim=1) @ functional.normalize(templates, dim=1).T
        cosine = cosine.masked_fill(~self.usable, -torch.inf)
        if self.config.selection == "nearest":
            return functional.one_hot(cosine.argmax(dim=1), self.config.num_categories).to(feature.dtype)
        return (cosine / self.config.temperature).softmax(dim=1)

    def forward(self, feature: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample 192"]:
        """Return F', the sample's feature fused with its renormalised template (equations 11 and 12)."""
        usable = self.usable
        if not bool(usable.any()):
            return feature
        weight = self.select(feature)
        # Zeros, because a weight of zero times NaN is NaN.
        templates = self.templates.masked_fill(~usable[:, None], 0)
        if self.config.renormalise == "template_to_sample":
            renormalised = adain(weight @ templates, feature)
        else:
            renormalised = self._towards_templates(feature, weight, templates)
        return self.config.fuse_weight * renormalised + (1 - self.config.fuse_weight) * feature

    def _towards_templates(
        self,
        feature: Float[Tensor, "sample 192"],
        weight: Float[Tensor, "sample category"],
        templates: Float[Tensor, "category 192"],
    ) -> Float[Tensor, "sample 192"]:
        # Statistics are averaged, not templates: a mean of vectors has a smaller deviation than they have.
        mean = weight @ templates.mean(dim=1)
        deviation = weight @ (templates.var(dim=1, unbiased=False) + EPSILON).sqrt()
        own = (feature.var(dim=1, unbiased=False) + EPSILON).sqrt()
        return (deviation / own)[:, None] * (feature - feature.mean(dim=1, keepdim=True)) + mean[:, None]

    @torch.no_grad()
    def observe(
        self,
        features: Float[Tensor, "sample 192"],
        categories: Int[Tensor, " sample"],
        losses: Float[Tensor, " sample"],
        counted: Bool[Tensor, " sample"],
    ) -> None:
        """Move the templates of the batch's categories (equations 9 and 10).

        `losses` are the contrastive losses l_j, whose variance within a category sets the approach speed;
        those of samples without a positive (`counted` False) are ignored. Samples without category (-1)
        are left out. Ranks of a distributed run see each other's samples and so keep the same templates.
        """
        features, categories, losses, counted = (
            _from_all_ranks(tensor.detach()) for tensor in (features, categories, losses, counted)
        )
        known = categories >= 0
        features, categories = features[known], categories[known]
        losses, weight = losses[known], counted[known].to(losses.dtype)
        if len(categories) == 0:
            return

        def total(values: Tensor) -> Tensor:
            zero = values.new_zeros(self.config.num_categories, *values.shape[1:])
            return zero.index_add(0, categories, values)

        number = total(torch.ones_like(losses))
        present = number > 0
        count, num_losses = number.clamp(min=1), total(weight)
        num_counted = num_losses.clamp(min=1)
        average = total(features) / count[:, None]
        mean_loss = total(weight * losses) / num_counted
        variance = total(weight * (losses - mean_loss[categories]).square()) / num_counted
        speed = 1 / (self.config.speed * (variance + _TINY) * count)
        if self.config.update == "bounded":
            step = ((1 - self.config.momentum) * speed.clamp(max=1))[:, None]
            moved = self.templates + step * (average - self.templates)
        else:
            approach = speed[:, None] * (average - self.templates)
            moved = self.config.momentum * self.templates + (1 - self.config.momentum) * approach
            moved = torch.where((num_losses >= 2)[:, None], moved, self.templates)
        first = present & ~self.seen
        self.templates[present] = moved[present]
        self.templates[first] = average[first]
        self.seen |= present


def _from_all_ranks(tensor: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
