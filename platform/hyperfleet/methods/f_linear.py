"""F-linear: the initial encoder is frozen, the static head is trained."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.methods.base import FROZEN_PASSES, HEAD_PARTS, Examples, TaskModel, static_loss
from hyperfleet.methods.stage import Stage
from hyperfleet.nn import HeadGeneratorConfig


@dataclass(frozen=True, kw_only=True)
class FLinear:
    """Baseline "F-linear" of both papers.

    The encoder keeps its initial weights: pretrained if any were available, random otherwise.

    Attributes:
        train_pooler: train the pooler as well, as All-in-One's own linear evaluation does.
    """

    name: str = "f_linear"
    train_pooler: bool = False

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """None: the head is static."""
        return None

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """One stage that trains the head on stored features."""
        parts = (*HEAD_PARTS, "device.pooler") if self.train_pooler else HEAD_PARTS
        passes = FROZEN_PASSES * (warm_epochs + epochs)
        return (Stage(name="head", trains=parts, epochs=passes, learning_rate=learning_rate),)

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """The task's loss of the static head."""
        return {"answer": static_loss(model, examples)}
