"""All that may cross the link between a device and the cloud.

A device sends features and gets heads; afterwards it reports what it answered. There is no
field for a frame, a question or a label, and cloud, device and link import nothing of each
other but this module, so what leaves a device can be read off here.

Wire format: a request is the features themselves, little-endian float32, 768 bytes each; a
reply is a safetensors file whose metadata name the model and the codec that its tensors are in.
"""

from dataclasses import dataclass

import numpy as np

from hyperfleet.errors import FeatureError, HeadLayoutError
from hyperfleet.head_codecs import CODECS, BaseHead, GeneratedHeads, Heads
from hyperfleet.head_codecs import HEAD_HIDDEN as HEAD_HIDDEN
from hyperfleet.head_codecs import HeadLayout as HeadLayout
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.frame import RowFiles, unpack

FEATURE_DIM = 192
FEATURE_BYTES = FEATURE_DIM * 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadRequest:
    """What a device uploads: one 192-float feature a head asked for.

    `features` has shape (n, 192), float32, n >= 1.

    Raises:
        FeatureError: wrong shape, wrong type, or a value that is not finite.
    """

    features: np.ndarray

    def __post_init__(self) -> None:
        features = self.features
        if features.ndim != 2 or features.shape[1] != FEATURE_DIM or len(features) == 0:
            raise FeatureError(
                f"a request carries features of shape (n, {FEATURE_DIM}) with n >= 1, got {features.shape}"
            )
        if features.dtype != np.float32:
            raise FeatureError(f"features must be float32, got {features.dtype}; cast them before sending")
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).sum())
            raise FeatureError(
                f"features must be finite, got {bad} NaN or infinite values of {features.size}"
            )

    def to_bytes(self) -> bytes:
        """Encode as little-endian float32, 768 bytes a feature."""
        return self.features.astype("<f4", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, body: bytes) -> "HeadRequest":
        """Decode a request body.

        Raises:
            FeatureError: the length is no positive multiple of 768 bytes, or a value is not finite.
        """
        if len(body) == 0 or len(body) % FEATURE_BYTES:
            raise FeatureError(
                f"a request body is n x {FEATURE_BYTES} bytes ({FEATURE_DIM} little-endian float32 a "
                f"feature), got {len(body)} bytes"
            )
        return cls(features=np.frombuffer(body, dtype="<f4").reshape(-1, FEATURE_DIM))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLabel:
    """Which model made a head: the name it is served under, its version, and the task its heads are for."""

    model: str
    version: str
    task: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadReply:
    """What the cloud answers: one head a feature, in the codec that the device asked for.

    Attributes:
        heads: ready to be applied.
        label: the model that made them.
        codec: how they travelled.
    """

    heads: Heads
    label: ModelLabel
    codec: str

    @property
    def layout(self) -> HeadLayout:
        """Shape of each head in the reply."""
        return self.heads.layout

    @classmethod
    def from_bytes(
        cls, body: bytes, *, expected: HeadLayout, num_heads: int, base: BaseHead | None = None
    ) -> "HeadReply":
        """Decode what `encode_heads` wrote and check it against the head the device can hold; no copies.

        Args:
            body: a whole reply.
            expected: shape of the device's own head.
            num_heads: how many were asked for.
            base: the device's own static head; codecs that send what is added to it need it, and with
            any codec it tells the served version from the one on the device.

        Raises:
            HeadLayoutError: not a safetensors file, heads of another shape or number, or heads for devices
                with another static head than `base`.
        """
        tensors, metadata = unpack(body)
        if metadata.get("codec") not in CODECS:
            raise HeadLayoutError(
                f"the reply is in codec {metadata.get('codec')!r}, this version knows {', '.join(CODECS)}; "
                "update the device or ask for one of these"
            )
        codec = CODECS[metadata["codec"]]
        base_id = metadata.get("base_id", "")
        # Whole heads as well: they are made for the encoder that was trained beside that static head.
        if base is not None and base_id != base.id and (base_id or codec.needs_base):
            raise HeadLayoutError(
                f"the reply is for devices with the static head {base_id!r}, this one's is {base.id!r}; "
                "load the model version that the generator serves onto the device"
            )
        heads = codec.decode(tensors, expected, base)
        if len(heads) != num_heads:
            raise HeadLayoutError(f"asked for {num_heads} heads, got {len(heads)}")
        label = ModelLabel(
            model=metadata.get("model", ""),
            version=metadata.get("model_version", ""),
            task=metadata.get("task", ""),
        )
        return cls(heads=heads, label=label, codec=codec.name)


def encode_batch(generated: GeneratedHeads, *, codec: str, label: ModelLabel) -> RowFiles:
    """Encode heads of several requests together; `.of(start, stop)` is the reply that carries some of them.

    A reply is a safetensors file that says itself what it holds.

    Raises:
        UnknownNameError: there is no such codec.
        HeadLayoutError: the heads cannot travel in it.
    """
    metadata = {
        "codec": codec,
        "model": label.model,
        "model_version": label.version,
        "task": label.task,
        "num_classes": str(generated.layout.num_classes),
        "hidden": str(generated.layout.hidden),
        "base_id": generated.base.id if generated.base is not None else "",
    }
    return RowFiles(head_codec(codec).encode(generated), metadata)


def encode_heads(generated: GeneratedHeads, *, codec: str, label: ModelLabel) -> bytes:
    """Encode generated heads as one reply; raises what `encode_batch` does."""
    return encode_batch(generated, codec=codec, label=label).of(0, len(generated))


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReport:
    """What a device tells after one request: which answer it chose, with which head, at what cost.

    Times are in seconds, sizes in bytes. `answer` is the index that the device chose: with the generated
    head, or with the static head of the same model when none arrived, and then `fallback` says why.
    `static_answer` is what the Fine-tuning model chose for the same sample.
    """

    device_id: int
    example_id: int
    network: str
    model_version: str
    answer: int
    static_answer: int
    uplink_bytes: int
    downlink_bytes: int
    uplink_s: float
    queue_s: float
    generate_s: float
    downlink_s: float
    apply_s: float
    fallback: str = ""
