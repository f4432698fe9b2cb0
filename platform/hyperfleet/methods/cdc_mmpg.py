"""CDC-MMPG: Fast Domain Adaptor (FDA) and AnchorFrame Distribution Reasoner (ADR)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_DIM
from hyperfleet.methods.base import (
    FROZEN_PASSES,
    GENERATOR_RATE,
    Examples,
    TaskModel,
    adapt_stage,
    adaptation_losses,
    generator_of,
    own_rate,
    random_anchor,
    static_loss,
    warm_stage,
)
from hyperfleet.methods.stage import ADAPTOR, WARM, Stage
from hyperfleet.nn import AnchorReasonerConfig, HeadGeneratorConfig

REASON = "reason"
REASON_BATCH_FACTOR = 8

# Ablations: the adaptor on the raw anchor, and the reasoner before a bare hypernetwork.
FDA_ALONE = HeadGeneratorConfig(adr=None)
# Equation 5: F_g itself is uploaded, so there is nothing to reason about.
FDA_OF_CLIP = HeadGeneratorConfig(adr=None, upload="clip")
ADR_ALONE = HeadGeneratorConfig(projector_hidden=None)
# Cheaper heads.
RANK8 = HeadGeneratorConfig(form="low_rank", rank=8)
FILM = HeadGeneratorConfig(form="film")
# Every equation read literally. Squared errors are summed over 192 channels here where the paper takes their
# mean, so a weight of 192 on the KL term equals the printed 1.
AS_PRINTED = HeadGeneratorConfig(
    adr=AnchorReasonerConfig(
        target="self", direction="anchor_to_decoded", inference="sample", kl_weight=192.0, anchor_weight=0.1
    ),
    static_base=False,
    init="torch",
)


@dataclass(frozen=True, kw_only=True)
class CdcMmpg:
    """The first paper's method, in three stages.

    `warm` trains the static model (the option warm_start=finetune; read literally, the paper fits the ADR
    to the initial encoder), `reason` fits the ADR to the frozen encoder's features (equations 14, 15 and
    17), `adapt` trains generator and encoder, with the ADR frozen unless `joint`.

    Attributes:
        generator: the hypernetwork with f_p, ADR or both.
        warm: begin with the static model's training; False is the literal schedule.
        generator_rate: learning rate of the generator relative to the rest's.
        joint: equation 18: one loss of the answers and of the ADR moves everything, encoder and static head
            included; otherwise these learn from the static head's loss, as in Fine-tuning, and the generator
            learns beside them, its ADR frozen.
    """

    name: str = "cdc_mmpg"
    generator: HeadGeneratorConfig = HeadGeneratorConfig()  # noqa: RUF009 - frozen
    warm: bool = True
    generator_rate: float = GENERATOR_RATE
    joint: bool = False

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """The hypernetwork."""
        return self.generator

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Warm start, ADR, then FDA with the device model."""
        reason = Stage(
            name=REASON,
            trains=("generator.adr",),
            epochs=FROZEN_PASSES * epochs,
            learning_rate=learning_rate,
            batch_factor=REASON_BATCH_FACTOR,
        )
        # Without the warm stage its passes go to the last one: every method makes the same number.
        adapt = adapt_stage(
            self.generator,
            epochs if self.warm else warm_epochs + epochs,
            own_rate(warm_epochs, epochs, learning_rate) if self.warm else learning_rate,
            generator_rate=self.generator_rate,
            generator_parts=("generator",) if self.joint else ADAPTOR,
        )
        reasoned = (reason,) if self.generator.adr is not None else ()
        warmed = (warm_stage(warm_epochs, epochs, learning_rate),) if self.warm else ()
        return (*warmed, *reasoned, adapt)

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """Loss of one stage; the anchor is a random frame of each sample."""
        if stage == WARM:
            return {"answer": static_loss(model, examples)}
        if stage == REASON:
            return _reasoning_losses(model, examples)
        losses = adaptation_losses(model, examples, joint=self.joint)
        if self.joint and generator_of(model).adr is not None:
            # The paper's errors are means over channels, ours are sums.
            for name, loss in _reasoning_losses(model, examples).items():
                losses[name] = loss / FEATURE_DIM
        return losses


def _reasoning_losses(model: TaskModel, examples: Examples) -> dict[str, Float[Tensor, ""]]:
    adr = generator_of(model).adr
    if adr is None:
        raise ConfigError(
            "the stage 'reason' trains the ADR, but the generator has none; leave the stage out"
        )
    frames = model.task.frames(examples.features)
    return adr.losses(random_anchor(frames), frames.mean(dim=1))
