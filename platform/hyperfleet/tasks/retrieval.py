"""Video-text retrieval: which clip a caption belongs to (TR), and which caption a clip (VR)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from hyperfleet.datasets.task_names import RETRIEVAL
from hyperfleet.nn import DeviceModel, Readout
from hyperfleet.tasks.base import Batch

EMBEDDING_DIM = 256
TEMPERATURE = 0.05
RECALL_AT = (1, 5, 10)


def ranks(scores: Float[Tensor, "query candidate"]) -> Int[Tensor, " query"]:
    """Return the rank (0: first) of candidate i for query i.

    Equal scores count against it, and so does NaN: a model that diverged finds nothing.
    """
    return (~(scores < scores.diagonal()[:, None])).sum(dim=1) - 1


def contrastive_loss(
    video: Float[Tensor, "sample dim"], text: Float[Tensor, "sample dim"], labels: Int[Tensor, " sample"]
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over the batch, the sum of both directions.

    Other captions of the same clip are not negatives. Embeddings have unit length.
    """
    scores = video @ text.T / TEMPERATURE
    same = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = scores.masked_fill(same, -torch.inf)
    target = torch.arange(len(labels), device=labels.device)
    return functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)


class Retrieval:
    """Features (sample, frames and then the text, 192); labels are clips.

    Each modality goes through the encoder alone. The head is the video's projection, static or
    generated for that clip; the text's projection is static, so that N x N scores stay one product.
    """

    name = RETRIEVAL
    readout: Readout = "embedding"

    def num_outputs(self, num_answers: int | None) -> int:
        """Width of the shared embedding."""
        return EMBEDDING_DIM

    def encode(self, device: DeviceModel, batch: Batch) -> Float[Tensor, "sample frame_and_text 192"]:
        """Encode clips and captions separately."""
        video = device.encoder.video(device.pixels(batch["frames"]))
        text = device.encoder.text(batch["token_ids"], batch["token_mask"])
        return torch.cat([video, text[:, None]], dim=1)

    def frames(
        self, features: Float[Tensor, "sample frame_and_text 192"]
    ) -> Float[Tensor, "sample frame 192"]:
        """Return the frames' features, without the text's."""
        return features[:, :-1]

    def hidden(
        self, device: DeviceModel, features: Float[Tensor, "sample frame_and_text 192"]
    ) -> Float[Tensor, "sample 1 192"]:
        """Return the clip's averaged feature."""
        return device.hidden(features[:, :-1].mean(dim=1))[:, None]

    def _embed(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample frame_and_text 192"],
        outputs: Float[Tensor, "sample 1 dim"],
    ) -> tuple[Float[Tensor, "sample dim"], Float[Tensor, "sample dim"]]:
        video = functional.normalize(outputs[:, 0], dim=1)
        return video, functional.normalize(device.text_projection(features[:, -1]), dim=1)

    def loss(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample frame_and_text 192"],
        outputs: Float[Tensor, "sample 1 dim"],
        labels: Int[Tensor, " sample"],
    ) -> Float[Tensor, ""]:
        """Symmetric InfoNCE of cosines."""
        return contrastive_loss(*self._embed(device, features, outputs), labels)

    def judge(
        self,
        device: DeviceModel,
        features: Float[Tensor, "sample frame_and_text 192"],
        outputs: Float[Tensor, "sample 1 dim"],
    ) -> Float[Tensor, "sample 2 dim"]:
        """Return both embeddings of each pair, the video's first."""
        return torch.stack(self._embed(device, features, outputs), dim=1)

    def hits(
        self, judged: Float[Tensor, "sample 2 dim"], labels: Int[Tensor, " sample"]
    ) -> dict[str, Bool[Tensor, " sample"]]:
        """Recall of video to text (VR@K) and text to video (TR@K) among all pairs given."""
        scores = judged[:, 0] @ judged[:, 1].T
        found = {"VR": ranks(scores), "TR": ranks(scores.T)}
        return {f"{name}@{k}": rank < k for name, rank in found.items() for k in RECALL_AT}
