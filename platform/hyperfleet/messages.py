"""All messages that may cross the link between a device and the cloud.

A device sends features and receives heads. No message has a field for a frame, a question or a label.
Cloud, device and link share nothing but this module, so it shows everything that leaves a device.

Wire format: a request is the features as little-endian float32, 768 bytes each; a reply is a safetensors file
whose metadata name the model and the codec of its tensors.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from hyperfleet.errors import FeatureError, HeadLayoutError
from hyperfleet.head_codecs import CODECS, BaseHead, GeneratedHeads, Heads
from hyperfleet.head_codecs import HEAD_HIDDEN as HEAD_HIDDEN
from hyperfleet.head_codecs import HeadLayout as HeadLayout
from hyperfleet.head_codecs.frame import RowFiles, unpack

# Looked up once per process, not once per batch of replies.
_codec = cache(CODECS.__getitem__)
FEATURE_DIM = 192
FEATURE_BYTES = FEATURE_DIM * 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadRequest:
    """Upload of a device: one feature of 192 floats per requested head.

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
        """Encode as little-endian float32, 768 bytes per feature."""
        return self.features.astype("<f4", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, body: bytes) -> "HeadRequest":
        """Decode a request body.

        Raises:
            FeatureError: the length is not a positive multiple of 768 bytes, or a value is not finite.
        """
        if len(body) == 0 or len(body) % FEATURE_BYTES:
            raise FeatureError(
                f"a request body is n x {FEATURE_BYTES} bytes ({FEATURE_DIM} little-endian float32 per "
                f"feature), got {len(body)} bytes"
            )
        return cls(features=np.frombuffer(body, dtype="<f4").reshape(-1, FEATURE_DIM))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLabel:
    """Model that generated a head: its served name, its version, and the task of its heads."""

    model: str
    version: str
    task: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadReply:
    """Answer of the cloud: one head per feature, in the codec that the device requested.

    Attributes:
        heads: received heads, ready to apply.
        label: the model that generated them.
        codec: codec in which they were sent.
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
        """Decode a reply of `encode_heads` without copies and check that it fits the device.

        Args:
            body: a complete reply.
            expected: shape of the device's own head.
            num_heads: number of heads requested.
            base: the device's own static head. Codecs that send offsets need it; with any codec it detects a
                served version that differs from the one on the device.

        Raises:
            HeadLayoutError: not a safetensors file, heads of another shape or number, or heads for a
                static head other than `base`.
        """
        tensors, metadata = unpack(body)
        if metadata.get("codec") not in CODECS:
            raise HeadLayoutError(
                f"the reply is in codec {metadata.get('codec')!r}, this version knows {', '.join(CODECS)}; "
                "update the device or request one of these"
            )
        codec = CODECS[metadata["codec"]]
        base_id = metadata.get("base_id", "")
        # Checked for full heads too: they fit the encoder that was trained with that static head.
        if base is not None and base_id != base.id and (base_id or codec.needs_base):
            raise HeadLayoutError(
                f"the reply is for devices with the static head {base_id!r}, this one's is {base.id!r}; "
                "load the model version that the generator serves onto the device"
            )
        heads = codec.decode(tensors, expected, base)
        if len(heads) != num_heads:
            raise HeadLayoutError(f"requested {num_heads} heads, got {len(heads)}")
        label = ModelLabel(
            model=metadata.get("model", ""),
            version=metadata.get("model_version", ""),
            task=metadata.get("task", ""),
        )
        return cls(heads=heads, label=label, codec=codec.name)


def encode_batch(generated: GeneratedHeads, *, codec: str, label: ModelLabel) -> RowFiles:
    """Encode heads of several requests together; `.of(start, stop)` is the reply with heads start to stop.

    `codec` is one of the generator's `codecs`; callers check names that come from clients.

    Raises:
        HeadLayoutError: the codec cannot carry the heads.
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
    return RowFiles(_codec(codec).encode(generated), metadata)


def encode_heads(generated: GeneratedHeads, *, codec: str, label: ModelLabel) -> bytes:
    """Encode heads as one reply; raises the errors of `encode_batch`."""
    return encode_batch(generated, codec=codec, label=label).of(0, len(generated))
