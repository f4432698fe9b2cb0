"""Fast Domain Adaptor (FDA): the hypernetwork that turns one feature into a head (CDC-MMPG, section 3.2)."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM, HeadLayout
from hyperfleet.nn.anchor_reasoner import AnchorReasoner, AnchorReasonerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadGeneratorConfig:
    """Which parts the generator has.

    Attributes:
        projector_hidden: hidden width of f_p (equation 5); None leaves f_p out.
        adr: the AnchorFrame Distribution Reasoner before f_p (equation 11); None leaves it out.
        static_base: generate an offset to the static head instead of the whole head. It starts the
            personalized head at the trained static one; a generator of whole heads started by
            nn.Linear's default makes logits of standard deviation 5.7.
        offset_init: the generated offset at start, relative to hyperfan-in initialisation.
    """

    projector_hidden: int | None = 96
    adr: AnchorReasonerConfig | None = field(default_factory=AnchorReasonerConfig)
    static_base: bool = True
    offset_init: float = 0.1

    def __post_init__(self) -> None:
        if self.projector_hidden is not None and self.projector_hidden < 1:
            raise ConfigError(
                f"HeadGeneratorConfig.projector_hidden must be >= 1, got {self.projector_hidden}"
            )
        if self.offset_init < 0:
            raise ConfigError(f"HeadGeneratorConfig.offset_init must be >= 0, got {self.offset_init}")


def hyperfan_in_(linear: nn.Linear, layout: HeadLayout, gain: float = 1.0) -> None:
    """Initialise the layer that emits a head so that the head's logits have variance `gain`^2.

    Hyperfan-in (Chang et al., Principled Weight Initialization for Hypernetworks, ICLR 2020) for a
    linear main layer with a generated bias, input of unit variance on both sides: weight rows get
    variance 1 / (2 fan_in d_k), bias rows 1 / (2 d_k), the layer's own bias is zero.
    """
    num_weights = layout.num_classes * layout.hidden
    embed = linear.in_features
    weight_bound = gain * math.sqrt(3 / (2 * layout.hidden * embed))
    bias_bound = gain * math.sqrt(3 / (2 * embed))
    with torch.no_grad():
        linear.weight[:num_weights].uniform_(-weight_bound, weight_bound)
        linear.weight[num_weights:].uniform_(-bias_bound, bias_bound)
        linear.bias.zero_()


class HeadGenerator(nn.Module):
    """From the anchor frame's feature to the parameters of the device's head (equations 5, 6 and 11).

    `base` is the static head, shared with the devices and so no parameter of the generator: C-Param
    counts `parameters()`, as the papers do.
    """

    base: Tensor

    def __init__(self, config: HeadGeneratorConfig, layout: HeadLayout) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        self.adr = AnchorReasoner(config.adr) if config.adr is not None else None
        self.f_p = (
            nn.Sequential(
                nn.Linear(FEATURE_DIM, config.projector_hidden),
                nn.LayerNorm(config.projector_hidden),
                nn.GELU(),
                nn.Linear(config.projector_hidden, FEATURE_DIM),
            )
            if config.projector_hidden is not None
            else None
        )
        # Parameter-free: it only gives f_h the unit variance that hyperfan counts on.
        self.normalise = nn.LayerNorm(FEATURE_DIM, elementwise_affine=False)
        self.f_h = nn.Linear(FEATURE_DIM, layout.num_params)
        hyperfan_in_(self.f_h, layout, gain=config.offset_init if config.static_base else 1.0)
        self.register_buffer("base", torch.zeros(layout.num_params))

    def offset(self, feature: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample param"]:
        """Return f_h(f_p(feature)): the generated offset for features that the ADR has already seen to."""
        embedding = self.f_p(feature) if self.f_p is not None else feature
        generated: Tensor = self.f_h(self.normalise(embedding))
        return generated

    def reason(self, anchor: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample 192"]:
        """Return the ADR's estimate of the clip's feature, or the anchor itself where there is no ADR."""
        if self.adr is None:
            return anchor
        reasoned: Tensor = self.adr(anchor)
        return reasoned

    def forward(self, anchor: Float[Tensor, "sample 192"]) -> Float[Tensor, "sample param"]:
        """Return one flat head (`HeadLayout` order) for each uploaded feature."""
        return self.base + self.offset(self.reason(anchor))
