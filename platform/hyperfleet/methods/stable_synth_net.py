"""StableSynthNet: Driver Contrastive Training, Offset-Driver Separation, Template-Driver Extraction."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hyperfleet.errors import ConfigError
from hyperfleet.methods.base import (
    GENERATOR_RATE,
    Examples,
    TaskModel,
    adapt_stage,
    adaptation_losses,
    generator_of,
    own_rate,
    parts_beside,
    random_anchor,
    static_loss,
    warm_stage,
)
from hyperfleet.methods.driver_contrastive import contrastive_losses, risk_variance
from hyperfleet.methods.stage import ADAPTOR, PUBLISHED_FIRST_RATE, WARM, Stage
from hyperfleet.nn import HeadGeneratorConfig, TemplateBankConfig

DRIVE = "drive"
SAMPLES_PER_CATEGORY = 4

WITH_TEMPLATES = HeadGeneratorConfig(adr=None, templates=TemplateBankConfig())
WITHOUT_TEMPLATES = HeadGeneratorConfig(adr=None)
# Every equation read literally.
AS_PRINTED = HeadGeneratorConfig(
    adr=None,
    templates=TemplateBankConfig(
        selection="nearest", renormalise="sample_to_template", update="literal", follows=False
    ),
    static_base=False,
    init="torch",
)


@dataclass(frozen=True, kw_only=True)
class StableSynthNet:
    """The second paper's method, in three stages.

    `warm` trains the static model, `drive` shapes the encoder with the contrastive losses and learns
    the templates, `adapt` trains everything else with the templates frozen. The template of an uploaded
    feature is found without its label, in training as at inference.

    Attributes:
        warm: begin with the static model's training; otherwise its passes go to the stages of its own.
        generator: the hypernetwork, with templates (Template-Driver Extraction) or without.
        contrastive: Driver Contrastive Training, equations 5 and 6.
        separation: Offset-Driver Separation, equation 8.
        temperature: T of equation 6.
        margin: m of equation 6, in radians.
        separation_weight: lambda of equation 8.
        keep_answering: train the static head in the stage `drive` too, so that the encoder does not forget
            its task; the paper names only the contrastive losses.
        generator_rate: learning rate of the generator relative to the rest's.
        joint: let the loss of the generated heads train encoder and static head too; otherwise these learn
            from the static head's loss, as in Fine-tuning, and the generator learns beside them.
    """

    name: str = "stable_synth_net"
    warm: bool = True
    generator: HeadGeneratorConfig = WITH_TEMPLATES
    contrastive: bool = True
    separation: bool = True
    temperature: float = 0.1
    margin: float = 0.1
    separation_weight: float = 0.1
    keep_answering: bool = True
    generator_rate: float = GENERATOR_RATE
    joint: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.margin < 0 or self.separation_weight < 0:
            raise ConfigError(
                "StableSynthNet needs temperature > 0, margin >= 0 and separation_weight >= 0, got "
                f"{self.temperature}, {self.margin}, {self.separation_weight}"
            )

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """The hypernetwork."""
        return self.generator

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Warm start; half of the passes drive the encoder, the others adapt.

        Raises:
            ConfigError: fewer than two passes.
        """
        warm_epochs, epochs = (warm_epochs, epochs) if self.warm else (0, warm_epochs + epochs)
        if epochs < 2:
            raise ConfigError(
                f"{self.name} needs 2 or more epochs of its own (half drive the encoder, half adapt), "
                f"got {epochs}"
            )
        driven = epochs // 2
        # Both stages continue the schedule of the shared one; the literal ones have schedules of their own.
        drive_rate = own_rate(warm_epochs, epochs, learning_rate)
        left = (epochs - driven) / epochs if self.keep_answering else 1.0
        drive = Stage(
            name=DRIVE,
            trains=parts_beside(self.generator) if self.keep_answering else ("device.encoder",),
            epochs=driven,
            learning_rate=drive_rate if self.keep_answering else learning_rate * PUBLISHED_FIRST_RATE,
            rate_left=left if self.keep_answering else 0.0,
            samples_per_category=SAMPLES_PER_CATEGORY,
        )
        adapt = adapt_stage(
            self.generator,
            epochs - driven,
            drive_rate * left,
            generator_rate=self.generator_rate,
            generator_parts=ADAPTOR,
        )
        warmed = (warm_stage(warm_epochs, epochs, learning_rate),) if self.warm else ()
        return (*warmed, drive, adapt)

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """Loss of one stage; the anchor is a random frame of each sample."""
        if stage == WARM:
            return {"answer": static_loss(model, examples)}
        if stage == DRIVE:
            return self._drive(model, examples)
        templates = generator_of(model).templates
        if templates is not None and templates.config.follows:
            with torch.no_grad():
                self._drive(model, examples)
        return adaptation_losses(model, examples, joint=self.joint)

    def _drive(self, model: TaskModel, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        anchor = random_anchor(model.task.frames(examples.features))
        losses, counted = contrastive_losses(
            anchor, examples.categories, temperature=self.temperature, margin=self.margin
        )
        templates = generator_of(model).templates
        if templates is not None:
            templates.observe(anchor, examples.categories, losses, counted)
        terms: dict[str, Tensor] = {}
        if self.contrastive:
            terms["contrastive"] = losses.sum() / counted.sum().clamp(min=1)
        if self.separation:
            terms["separation"] = self.separation_weight * risk_variance(losses, examples.categories, counted)
        if self.keep_answering or not terms:
            terms["answer"] = static_loss(model, examples)
        return terms
