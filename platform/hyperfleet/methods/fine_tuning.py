"""Fine-tuning: the static cloud model, encoder and head trained on the history of all devices."""

from jaxtyping import Float, Int
from torch import Tensor

from hyperfleet.methods.base import WARM, Stage, VideoQAModel
from hyperfleet.tasks.open_ended_qa import answer_loss


def static_logits(
    model: VideoQAModel, features: Float[Tensor, "sample frame 192"]
) -> Float[Tensor, "sample class"]:
    """Apply the static head to the averaged feature of the frames."""
    logits: Tensor = model.device.head(model.device.hidden(features.mean(dim=1)))
    return logits


class FineTuning:
    """Baseline "Fine-tuning" of both papers.

    The second stage repeats the schedule of the first from where it ended. It exists so that a method
    that starts from the first stage's model is compared with a baseline of the same budget.
    """

    name = "fine_tuning"
    personalizes = False

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Two stages over all parameters of the device model."""
        return (
            Stage(name=WARM, trains=("device",), epochs=warm_epochs, learning_rate=learning_rate),
            Stage(name="continue", trains=("device",), epochs=epochs, learning_rate=learning_rate / 2),
        )

    def losses(
        self,
        model: VideoQAModel,
        stage: str,
        features: Float[Tensor, "sample frame 192"],
        labels: Int[Tensor, " sample"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Cross entropy of the static head."""
        return {"answer": answer_loss(static_logits(model, features), labels)}

    def logits(
        self,
        model: VideoQAModel,
        features: Float[Tensor, "sample frame 192"],
        anchor: Float[Tensor, "sample 192"],
    ) -> Float[Tensor, "sample class"]:
        """Scores of the static head; the anchor is not used."""
        return static_logits(model, features)
