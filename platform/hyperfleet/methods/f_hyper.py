"""F-hyper: a hypernetwork alone, without anything that reads the anchor first."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.methods.base import (
    ADAPT,
    FROZEN_PASSES,
    Examples,
    TaskModel,
    adapt_stage,
    adaptation_losses,
    own_rate,
    parts_beside,
    static_loss,
    warm_stage,
)
from hyperfleet.methods.stage import WARM, Stage
from hyperfleet.nn import HeadGeneratorConfig

AS_PRINTED = HeadGeneratorConfig(projector_hidden=None, adr=None, static_base=False, init="torch")
WELL_INITIALISED = HeadGeneratorConfig(projector_hidden=None, adr=None)
_FROZEN = ("device.encoder", "device.pooler")


@dataclass(frozen=True, kw_only=True)
class FHyper:
    """Baseline "F-hyper" of both papers: only trunk and hypernetwork train, and full heads are generated.

    Attributes:
        generator: the hypernetwork f_h.
        train_encoder: warm-start and train the encoder too, so that a difference from CDC-MMPG is not due to
            training the encoder.
        joint: let the loss of the generated heads train encoder and static head too; otherwise these learn
            from the static head's loss, as in Fine-tuning, and the generator learns beside them.
    """

    name: str = "f_hyper"
    generator: HeadGeneratorConfig = AS_PRINTED
    train_encoder: bool = False
    joint: bool = False

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """The hypernetwork."""
        return self.generator

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """One stage on stored features, or the warm stage and one that trains everything."""
        if not self.train_encoder:
            parts = (*parts_beside(self.generator), "generator")
            frozen = tuple(part for part in parts if part not in _FROZEN)
            passes = FROZEN_PASSES * (warm_epochs + epochs)
            return (Stage(name=ADAPT, trains=frozen, epochs=passes, learning_rate=learning_rate),)
        return (
            warm_stage(warm_epochs, epochs, learning_rate),
            adapt_stage(self.generator, epochs, own_rate(warm_epochs, epochs, learning_rate)),
        )

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """The task's loss of the generated heads, from a random frame."""
        if stage == WARM:
            return {"answer": static_loss(model, examples)}
        return adaptation_losses(model, examples, joint=self.joint)
