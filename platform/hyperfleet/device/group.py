"""A group of devices that shares one process: each device's data and head are its own, the code is shared."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hyperfleet.datasets.sampling import central_crop, inference_frames
from hyperfleet.device.samples import Samples
from hyperfleet.errors import CheckpointError, HeadLayoutError
from hyperfleet.head_codecs import BaseHead
from hyperfleet.messages import HeadReply, HeadRequest
from hyperfleet.nn import DeviceModel
from hyperfleet.seeding import numpy_generator


@runtime_checkable
class FrameStore(Protocol):
    """Where the frames of a clip come from; `hyperfleet.datasets` has one."""

    @property
    def num_stored_frames(self) -> int:
        """Frames kept of each clip."""
        ...

    def frames(
        self, rows: Int[np.ndarray, " clip"], frame_index: Int[np.ndarray, "clip frame"]
    ) -> UInt8[np.ndarray, "clip frame height width 3"]:
        """Return the chosen frames of the chosen clips."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedSamples:
    """What the devices computed of their samples; one row a sample.

    Attributes:
        anchor: feature of the anchor frame, the only thing that is uploaded.
        anchor_frame: which of the clip's frames that is.
        hidden: phi(F_g), what a head is applied to.
        base_answer: answer of the personal model's own static head, used when no head arrives.
        static_answer: answer of the static model, which never asks the cloud.
    """

    samples: Samples
    anchor: Float[np.ndarray, "sample 192"]
    anchor_frame: Int[np.ndarray, " sample"]
    hidden: Float[np.ndarray, "sample 96"]
    base_answer: Int[np.ndarray, " sample"]
    static_answer: Int[np.ndarray, " sample"]

    def __len__(self) -> int:
        return len(self.anchor)

    def request(self, i: int) -> HeadRequest:
        """Return the message that the device of sample `i` sends."""
        return HeadRequest(features=self.anchor[i : i + 1])

    def answer(self, i: int, reply: HeadReply) -> int:
        """Answer sample `i` with the head that came for it: the argmax of P = W phi(F_g) + b (equation 7).

        Raises:
            HeadLayoutError: the head gives scores that are not finite, and so no answer.
        """
        # Each head is applied where it was received: a loop over heads is as fast as one product over those
        # that lie in one array (18.5 against 22.2 microseconds a head) and twice as fast as with the copy
        # that puts them there. So no more heads are in memory than are under way.
        scores = reply.heads.scores(self.hidden[i : i + 1])[0]
        if not np.isfinite(scores).all():
            raise HeadLayoutError(
                f"the head from model {reply.label.version} gives {int((~np.isfinite(scores)).sum())} scores "
                f"of {len(scores)} that are NaN or infinite; serve a generator whose training converged"
            )
        return int(scores.argmax())


class DeviceGroup:
    """Many devices as arrays: they encode in batches, but each sees only its own samples.

    `personal` is the device part of the personalized model, `static` the Fine-tuning model that
    answers the same samples with its own encoder and head; `store` holds the clips.

    Raises:
        CheckpointError: the two models do not answer the same questions about the same frames.
    """

    def __init__(self, *, personal: DeviceModel, static: DeviceModel, store: FrameStore, seed: int) -> None:
        check_comparable(personal, static)
        self.personal = personal
        self.static = static
        self.store = store
        self.seed = seed

    @property
    def base(self) -> BaseHead:
        """The static head that offsets are added to; its layout is the one that fits these devices."""
        return BaseHead(layout=self.personal.layout, flat=self.personal.flat_head().detach())

    def encode(self, samples: Samples) -> EncodedSamples:
        """Compute everything that needs no cloud: features, the anchor's choice and the static answers.

        Nothing is kept for a gradient: a device has no memory for one and no label to get one from.
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
        anchor_frame = self._anchor_frames(samples)
        return EncodedSamples(
            samples=samples,
            anchor=features.numpy()[np.arange(len(samples)), anchor_frame],
            anchor_frame=anchor_frame,
            hidden=hidden.numpy(),
            base_answer=base_answer.numpy(),
            static_answer=static_answer.numpy(),
        )

    def _anchor_frames(self, samples: Samples) -> Int[np.ndarray, " sample"]:
        num_frames = self.personal.encoder.config.num_frames
        drawn = [
            numpy_generator(self.seed, "anchor", int(device_id), int(example_id)).integers(num_frames)
            for device_id, example_id in zip(samples.device_id, samples.example_id, strict=True)
        ]
        return np.array(drawn, dtype=np.int64)


def _static_path(
    model: DeviceModel, features: Float[Tensor, "sample frame 192"]
) -> tuple[Float[Tensor, "sample 96"], Int[Tensor, " sample"]]:
    hidden = model.hidden(features.mean(dim=1))
    return hidden, model.head(hidden).argmax(dim=1)


def check_comparable(personal: DeviceModel, static: DeviceModel) -> None:
    """Make sure that both models take the same frames and questions and know the same answers.

    Raises:
        CheckpointError: they do not.
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
            "compare models that were trained on one data set with one encoder"
        )
