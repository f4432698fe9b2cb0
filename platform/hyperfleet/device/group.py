"""Devices that share one process. Each has its own data; the models are shared."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hyperfleet.datasets import FrameStore
from hyperfleet.datasets.sampling import central_crop, inference_frames
from hyperfleet.device.samples import Samples
from hyperfleet.errors import CheckpointError
from hyperfleet.nn import DeviceModel
from hyperfleet.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedSamples:
    """Results of encoding samples, one row per sample.

    Attributes:
        anchor: feature of the anchor frame, the only value that is uploaded.
        hidden: phi(F_g), the input of a head.
        base_answer: answer of the personal model's own static head, used when no head arrives.
        static_answer: answer of the static model, which never asks the cloud.
    """

    anchor: Float[np.ndarray, "sample 192"]
    hidden: Float[np.ndarray, "sample 96"]
    base_answer: Int[np.ndarray, " sample"]
    static_answer: Int[np.ndarray, " sample"]

    def __len__(self) -> int:
        return len(self.anchor)


class DeviceGroup:
    """Many devices as arrays. They encode in batches; each sees only its own samples.

    `personal` is the device part of the personalized model. `static` is the Fine-tuning model, which
    answers the same samples with its own encoder and head. `store` holds the clips; `seed` draws the
    anchor frames.

    Raises:
        CheckpointError: the two models do not answer the same questions about the same frames.
    """

    def __init__(self, *, personal: DeviceModel, static: DeviceModel, store: FrameStore, seed: int) -> None:
        check_comparable(personal, static)
        self.personal = personal
        self.static = static
        self.store = store
        self.seed = seed

    def encode(self, samples: Samples) -> EncodedSamples:
        """Compute everything that needs no cloud: features, anchors and static answers.

        No gradient is recorded: a device has neither the memory nor a label for one.
        """
        config = self.personal.encoder.config
        # Questions about one clip share its frames: decode them once.
        rows, place = np.unique(samples.clip_row, return_inverse=True)
        index = inference_frames(self.store.num_stored_frames, config.num_frames)
        stored = self.store.frames(rows, np.broadcast_to(index, (len(rows), config.num_frames)))
        frames = torch.from_numpy(central_crop(stored, config.image_size)[place])
        token_ids = torch.from_numpy(samples.token_ids.astype(np.int64))
        token_mask = torch.from_numpy(samples.token_mask)
        with torch.inference_mode():
            features = self.personal.encode(frames, token_ids, token_mask)
            hidden, base_answer = _static_path(self.personal, features)
            if self.static is self.personal:
                static_answer = base_answer
            else:
                static_features = self.static.encode(frames, token_ids, token_mask)
                _, static_answer = _static_path(self.static, static_features)
        anchor_frame = anchor_frames(samples, config.num_frames, self.seed)
        return EncodedSamples(
            anchor=features.numpy()[np.arange(len(samples)), anchor_frame],
            hidden=hidden.numpy(),
            base_answer=base_answer.numpy(),
            static_answer=static_answer.numpy(),
        )


def anchor_frames(samples: Samples, num_frames: int, seed: int) -> Int[np.ndarray, " sample"]:
    """Draw the anchor frame of each sample, keyed by its device and question."""
    drawn = [
        numpy_generator(seed, "anchor", int(device_id), int(example_id)).integers(num_frames)
        for device_id, example_id in zip(samples.device_id, samples.example_id, strict=True)
    ]
    return np.array(drawn, dtype=np.int64)


def _static_path(
    model: DeviceModel, features: Float[Tensor, "sample frame 192"]
) -> tuple[Float[Tensor, "sample 96"], Int[Tensor, " sample"]]:
    hidden = model.hidden(features.mean(dim=1))
    return hidden, model.head(hidden).argmax(dim=1)


def check_comparable(personal: DeviceModel, static: DeviceModel) -> None:
    """Check that both models take the same frames and questions and have the same answers.

    Raises:
        CheckpointError: they differ.
    """

    def inputs(model: DeviceModel) -> dict[str, int]:
        config = model.encoder.config
        return {
            "classes": model.layout.num_classes,
            "image size": config.image_size,
            "frames": config.num_frames,
            "question length": config.text_length,
            "vocabulary": config.vocab_size,
        }

    if inputs(personal) != inputs(static):
        raise CheckpointError(
            f"the personalized model takes {inputs(personal)}, the static one {inputs(static)}; "
            "compare models that were trained on the same data set with the same encoder"
        )
