"""F-linear: the encoder frozen as it came, the static head trained."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.methods.base import FROZEN_PASSES, HEAD_PARTS, Examples, TaskModel, static_loss
from hyperfleet.methods.stage import Stage
from hyperfleet.nn import HeadGeneratorConfig


@dataclass(frozen=True, kw_only=True)
class FLinear:
    """Baseline "F-linear" of both papers.

    The encoder is the one training began with: pretrained where weights were at hand, random otherwise.

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
        """One stage over the head, on kept features."""
        parts = (*HEAD_PARTS, "device.pooler") if self.train_pooler else HEAD_PARTS
        passes = FROZEN_PASSES * (warm_epochs + epochs)
        return (Stage(name="head", trains=parts, epochs=passes, learning_rate=learning_rate),)

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """The task's loss of the static head."""
        return {"answer": static_loss(model, examples)}
