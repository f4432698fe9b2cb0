"""Multiple-choice video question answering: which of five captions describes the clip."""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from hyperfleet.datasets.task_names import MULTIPLE_CHOICE
from hyperfleet.nn import DeviceModel, Readout
from hyperfleet.tasks.base import Batch, choose


class MultipleChoice:
    """Features (sample, candidate, frame, 192); one item per candidate, scored by a head 192 -> 1.

    A clip has one head for all its candidates, generated from the mean of their anchors: one head per
    candidate would let the generator write the score itself, and cost five uploads.
    """

    name = MULTIPLE_CHOICE
    readout: Readout = "candidates"

    def num_outputs(self, num_answers: int | None) -> int:
        """One score per candidate."""
        return 1

    def encode(self, device: DeviceModel, batch: Batch) -> Float[Tensor, "sample candidate frame 192"]:
        """Fuse each clip with each of its candidates."""
        return device.encode_candidates(batch["frames"], batch["token_ids"], batch["token_mask"])

    def frames(
        self, features: Float[Tensor, "sample candidate frame 192"]
    ) -> Float[Tensor, "sample frame 192"]:
        """Return the mean over the candidates."""
        return features.mean(dim=1)

    def hidden(
        self, device: DeviceModel, features: Float[Tensor, "sample candidate frame 192"]
    ) -> Float[Tensor, "sample candidate 192"]:
        """Return the pooled feature of each candidate."""
        return device.hidden(features.mean(dim=2))

    def loss(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample candidate frame 192"],
        outputs: Float[Tensor, "sample candidate 1"],
        labels: Int[Tensor, " sample"],
    ) -> Float[Tensor, ""]:
        """Cross entropy over the candidates."""
        return functional.cross_entropy(outputs[..., 0], labels)

    def judge(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample candidate frame 192"],
        outputs: Float[Tensor, "sample candidate 1"],
    ) -> Int[Tensor, " sample"]:
        """Return the chosen candidates."""
        return choose(outputs[..., 0])

    def hits(
        self, judged: Int[Tensor, " sample"], labels: Int[Tensor, " sample"]
    ) -> dict[str, Bool[Tensor, " sample"]]:
        """Accuracy; guessing gives one in five."""
        return {"accuracy": judged == labels}
