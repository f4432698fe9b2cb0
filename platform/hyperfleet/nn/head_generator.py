"""The hypernetwork that turns an uploaded feature into a head (FDA, CDC-MMPG section 3.2)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import GeneratedForm
from hyperfleet.messages import FEATURE_DIM, HeadLayout
from hyperfleet.nn.anchor_reasoner import AnchorReasoner, AnchorReasonerConfig
from hyperfleet.nn.head_form import StaticHead, head_form
from hyperfleet.nn.sequence_reader import SequenceReader, SequenceReaderConfig
from hyperfleet.nn.template_bank import TemplateBank, TemplateBankConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadGeneratorConfig:
    """Parts of the generator; at most one of `adr`, `templates` and `sequence` precedes f_p.

    Attributes:
        projector_hidden: hidden width of f_p (equation 5); None leaves f_p out.
        emitter_hidden: hidden width of f_h; None makes it one linear layer, as in the printed C-Param.
        adr: CDC-MMPG's AnchorFrame Distribution Reasoner (equation 11).
        templates: StableSynthNet's template bank (equations 11 and 12).
        sequence: DUET's reader, which wants the features of all frames instead of one.
        upload: `anchor`, one frame's feature; or `clip`, F_g, the mean over all frames (equation 5): what the
            ADR estimates, and so its upper bound.
        static_base: generate an offset to the static head instead of the whole head. It starts the
            personalized head at the trained static one.
        offset_init: the generated offset at start, relative to hyperfan-in initialisation.
        init: `hyperfan`, or `torch`: nn.Linear's default, whose heads make logits of deviation 5.7.
        form: what is generated: the `full` head, factors of it (`low_rank`) or a modulation (`film`).
        rank: rank of the factors.
    """

    projector_hidden: int | None = 96
    emitter_hidden: int | None = None
    adr: AnchorReasonerConfig | None = field(default_factory=AnchorReasonerConfig)
    templates: TemplateBankConfig | None = None
    sequence: SequenceReaderConfig | None = None
    upload: Literal["anchor", "clip"] = "anchor"
    static_base: bool = True
    offset_init: float = 0.1
    init: Literal["hyperfan", "torch"] = "hyperfan"
    form: GeneratedForm = "full"
    rank: int = 8

    def __post_init__(self) -> None:
        for name in ("projector_hidden", "emitter_hidden"):
            width = getattr(self, name)
            if width is not None and width < 1:
                raise ConfigError(f"HeadGeneratorConfig.{name} must be >= 1 or None, got {width}")
        if self.offset_init < 0:
            raise ConfigError(f"HeadGeneratorConfig.offset_init must be >= 0, got {self.offset_init}")
        fronts = [name for name in ("adr", "templates", "sequence") if getattr(self, name) is not None]
        if len(fronts) > 1:
            raise ConfigError(f"a generator has one reader before f_p, got {' and '.join(fronts)}")
        if self.upload == "clip" and (self.adr is not None or self.sequence is not None):
            raise ConfigError("upload='clip' replaces the ADR and the sequence reader; leave them out")
        if self.form != "full" and not self.static_base:
            raise ConfigError(f"a {self.form} head changes the static head; it needs static_base=True")

    @property
    def num_uploaded(self) -> int:
        """Features that a device uploads for one head."""
        return self.sequence.num_frames if self.sequence is not None else 1


class HeadGenerator(nn.Module):
    """Map the anchor frame's feature to the parameters of the device's head (equations 5, 6 and 11).

    `base` is the static head, shared with the devices and thus not a parameter of the generator: C-Param
    counts `parameters()`, as the papers do.
    """

    base: Tensor

    def __init__(self, config: HeadGeneratorConfig, layout: HeadLayout) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        self.form = head_form(config.form, layout, config.rank)
        self.adr = AnchorReasoner(config.adr) if config.adr is not None else None
        self.templates = TemplateBank(config.templates) if config.templates is not None else None
        self.sequence = SequenceReader(config.sequence) if config.sequence is not None else None
        width = config.sequence.hidden if config.sequence is not None else FEATURE_DIM
        self.f_p = (
            nn.Sequential(
                nn.Linear(width, config.projector_hidden),
                nn.LayerNorm(config.projector_hidden),
                nn.GELU(),
                nn.Linear(config.projector_hidden, width),
            )
            if config.projector_hidden is not None
            else None
        )
        # Parameter-free: it only gives f_h the unit variance that hyperfan assumes.
        self.normalise = nn.LayerNorm(width, elementwise_affine=False)
        embed = config.emitter_hidden or width
        emitter = nn.Linear(embed, self.form.num_generated)
        if config.init == "hyperfan":
            self.form.init_(emitter, config.offset_init if config.static_base else 1.0)
        self.f_h: nn.Module = (
            emitter
            if config.emitter_hidden is None
            else nn.Sequential(
                nn.Linear(width, embed), nn.GELU(), nn.LayerNorm(embed, elementwise_affine=False), emitter
            )
        )
        self.register_buffer("base", torch.zeros(layout.num_params))

    @property
    def uploads_one_feature(self) -> bool:
        """Whether one feature of one frame is enough; DUET's reader needs all of them."""
        return self.sequence is None

    @property
    def payload_bytes(self) -> int:
        """Size of the numbers that cross the link for one head, in bytes of float32."""
        return 4 * self.form.num_generated

    @property
    def emitter(self) -> nn.Linear:
        """Layer that emits the numbers; it has nearly all of the weights."""
        last = self.f_h[-1] if isinstance(self.f_h, nn.Sequential) else self.f_h
        assert isinstance(last, nn.Linear)
        return last

    def embed(self, reasoned: Float[Tensor, "sample dim"]) -> Float[Tensor, "sample embed"]:
        """Return the input of `emitter`."""
        embedding: Tensor = self.normalise(self.f_p(reasoned) if self.f_p is not None else reasoned)
        if isinstance(self.f_h, nn.Sequential):
            for layer in self.f_h[:-1]:
                embedding = layer(embedding)
        return embedding

    def generate(self, reasoned: Float[Tensor, "sample dim"]) -> Float[Tensor, "sample number"]:
        """Return f_h(f_p(x)): the numbers of one head for each output of `reason`."""
        generated: Tensor = self.emitter(self.embed(reasoned))
        return generated

    def reason(self, anchor: Float[Tensor, "sample *frame 192"]) -> Float[Tensor, "sample dim"]:
        """Return the input of f_p: the upload after ADR, templates or sequence reader, if there is one."""
        for reader in (self.adr, self.templates, self.sequence):
            if reader is not None:
                reasoned: Tensor = reader(anchor)
                return reasoned
        return anchor

    def outputs(
        self,
        anchor: Float[Tensor, "sample *frame 192"],
        hidden: Float[Tensor, "sample item hidden"],
        static: StaticHead,
    ) -> Float[Tensor, "sample item output"]:
        """Generate a head from each upload and apply it, on top of the device's `static` head if any."""
        generated = self.generate(self.reason(anchor))
        return self.form.outputs(generated, hidden, static if self.config.static_base else None)

    def forward(self, anchor: Float[Tensor, "sample *frame 192"]) -> Float[Tensor, "sample param"]:
        """Return one full flat head (`HeadLayout` order) for each upload."""
        return self.form.materialise(self.generate(self.reason(anchor)), self.base)
