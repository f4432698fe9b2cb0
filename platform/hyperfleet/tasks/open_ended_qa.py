"""Open-ended video question answering: one of C answers for a clip and a question."""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.errors import ConfigError
from hyperfleet.nn import DeviceModel, Readout
from hyperfleet.tasks.base import Batch, choose

OUT_OF_VOCABULARY = -1


def answer_loss(logits: Float[Tensor, "sample class"], labels: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
    """Cross entropy over the answers; samples whose answer is out of the vocabulary are ignored."""
    total = functional.cross_entropy(logits, labels, ignore_index=OUT_OF_VOCABULARY, reduction="sum")
    # A batch may hold no other samples; its loss is then zero, not NaN.
    return total / (labels != OUT_OF_VOCABULARY).sum().clamp(min=1)


class OpenEndedQA:
    """Features (sample, frame, 192); one item, the averaged feature; labels are classes, -1 for none."""

    name = OPEN_ENDED_QA
    readout: Readout = "answers"

    def num_outputs(self, num_answers: int | None) -> int:
        """One class per answer, and one that is never a target.

        Raises:
            ConfigError: the data set has no vocabulary of answers.
        """
        if num_answers is None:
            raise ConfigError("open-ended question answering needs a data set with a vocabulary of answers")
        return num_answers + 1

    def encode(self, device: DeviceModel, batch: Batch) -> Float[Tensor, "sample frame 192"]:
        """Fuse each clip with its question."""
        return device.encode(batch["frames"], batch["token_ids"], batch["token_mask"])

    def frames(self, features: Float[Tensor, "sample frame 192"]) -> Float[Tensor, "sample frame 192"]:
        """Return F_m."""
        return features

    def hidden(
        self, device: DeviceModel, features: Float[Tensor, "sample frame 192"]
    ) -> Float[Tensor, "sample 1 hidden"]:
        """Return phi(F_g)."""
        return device.hidden(features.mean(dim=1))[:, None]

    def loss(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample frame 192"],
        outputs: Float[Tensor, "sample 1 class"],
        labels: Int[Tensor, " sample"],
    ) -> Float[Tensor, ""]:
        """Cross entropy over the answers."""
        return answer_loss(outputs[:, 0], labels)

    def judge(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample frame 192"],
        outputs: Float[Tensor, "sample 1 class"],
    ) -> Int[Tensor, " sample"]:
        """Return the chosen answers."""
        return choose(outputs[:, 0])

    def hits(
        self, judged: Int[Tensor, " sample"], labels: Int[Tensor, " sample"]
    ) -> dict[str, Bool[Tensor, " sample"]]:
        """Accuracy; an answer out of the vocabulary cannot be given, and counts as wrong."""
        return {"accuracy": judged == labels}
