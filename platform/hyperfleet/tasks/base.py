"""Interface of a task: its features, the input of its head, its loss and its measures."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from hyperfleet.nn import DeviceModel, Readout

Batch = dict[str, Tensor]

# Choice of a sample whose scores are not finite; no label has this value.
NO_CHOICE = -2


def choose(scores: Float[Tensor, "sample choice"]) -> Int[Tensor, " sample"]:
    """Return the choice of the highest score; a model that diverged to NaN chooses nothing."""
    return scores.argmax(dim=1).masked_fill(~scores.isfinite().all(dim=1), NO_CHOICE)


@runtime_checkable
class Task(Protocol):
    """One task; stateless, so that one instance serves every run.

    A sample's features are one tensor (sample, ..., 192), so that they can be stored; the task defines the
    axes in between. `outputs` (sample, item, output) is the result of a head, static or generated, applied
    to `hidden`.
    """

    name: str
    readout: Readout

    def num_outputs(self, num_answers: int | None) -> int:
        """Return the rows of the head; `num_answers` is the size of an answer vocabulary, if there is one."""
        ...

    def encode(self, device: DeviceModel, batch: Batch) -> Float[Tensor, "sample *axes 192"]:
        """Compute a batch's features from `frames`, `token_ids` and `token_mask`."""
        ...

    def frames(self, features: Float[Tensor, "sample *axes 192"]) -> Float[Tensor, "sample frame 192"]:
        """Return the features of the frames, of which one (DUET: all) is uploaded."""
        ...

    def hidden(
        self, device: DeviceModel, features: Float[Tensor, "sample *axes 192"]
    ) -> Float[Tensor, "sample item hidden"]:
        """Return the head's input."""
        ...

    def loss(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample *axes 192"],
        outputs: Float[Tensor, "sample item output"],
        labels: Int[Tensor, " sample"],
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch."""
        ...

    def judge(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample *axes 192"],
        outputs: Float[Tensor, "sample item output"],
    ) -> Tensor:
        """Reduce a chunk of samples to what `hits` needs of them (sample, ...), without any label."""
        ...

    def hits(self, judged: Tensor, labels: Int[Tensor, " sample"]) -> dict[str, Bool[Tensor, " sample"]]:
        """Return, for each measure, which samples are right; a measure's value is the share of hits."""
        ...
