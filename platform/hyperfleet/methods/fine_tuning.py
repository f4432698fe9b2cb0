"""Fine-tuning: the static cloud model, encoder and head trained on the history of all devices."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hyperfleet.methods.base import (
    DEVICE_PARTS,
    Examples,
    TaskModel,
    own_rate,
    static_loss,
    warm_stage,
)
from hyperfleet.methods.stage import Stage
from hyperfleet.nn import HeadGeneratorConfig


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Baseline "Fine-tuning" of both papers.

    The second stage continues the schedule of the first. It exists so that a method that starts from the
    first stage's model is compared with a baseline of the same budget.
    """

    name: str = "fine_tuning"

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """None: the head is static."""
        return None

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Two stages that train all parameters of the device model."""
        return (
            warm_stage(warm_epochs, epochs, learning_rate),
            Stage(
                name="continue",
                trains=DEVICE_PARTS,
                epochs=epochs,
                learning_rate=own_rate(warm_epochs, epochs, learning_rate),
            ),
        )

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """The task's loss of the static head."""
        return {"answer": static_loss(model, examples)}
