"""DUET: heads generated from the sequence of all frames' features, without templates or distributions."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.methods.base import (
    Examples,
    TaskModel,
    adapt_stage,
    adaptation_losses,
    own_rate,
    static_loss,
    warm_stage,
)
from hyperfleet.methods.catalogue import FRAMES_READ
from hyperfleet.methods.stage import WARM, Stage
from hyperfleet.nn import HeadGeneratorConfig, SequenceReaderConfig


@dataclass(frozen=True, kw_only=True)
class Duet:
    """Video port of DUET (Lv et al., WWW 2023), StableSynthNet's Table 2.

    A GRU reads five features, an MLP turns them into one vector, and a linear layer emits the head. Every
    part is trained; in the released code the layers that emit the weights are not registered as parameters
    and keep their random values. The paper's stable weight adapter was not released and is left out. Not
    DUET's, but shared with the other methods here: the warm start, the generated offset to a static head,
    and its initialization.

    Attributes:
        generator: reader and hypernetwork.
        joint: let the loss of the generated heads train encoder and static head too; otherwise these learn
            from the static head's loss, as in Fine-tuning, and the generator learns beside them.
    """

    name: str = "duet"
    generator: HeadGeneratorConfig = HeadGeneratorConfig(  # noqa: RUF009 - frozen
        projector_hidden=None, adr=None, sequence=SequenceReaderConfig(num_frames=FRAMES_READ["duet"])
    )
    joint: bool = False

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """Reader and hypernetwork."""
        return self.generator

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """The warm stage, then one that trains everything."""
        return (
            warm_stage(warm_epochs, epochs, learning_rate),
            adapt_stage(self.generator, epochs, own_rate(warm_epochs, epochs, learning_rate)),
        )

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """The task's loss of the generated heads."""
        if stage == WARM:
            return {"answer": static_loss(model, examples)}
        return adaptation_losses(model, examples, joint=self.joint)
