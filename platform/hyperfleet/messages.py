"""All that may cross the link between a device and the cloud.

A device sends features and gets heads; afterwards it reports what it answered. There is no
field for a frame, a question or a label, and cloud, device and link import nothing of each
other but this module, so what leaves a device can be read off here.

Wire format: a request is the features themselves, little-endian float32, 768 bytes each; a
reply is a safetensors file holding `weight` (n, classes, hidden) and `bias` (n, classes).
"""

from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy

from hyperfleet.errors import FeatureError, HeadLayoutError

FEATURE_DIM = 192
FEATURE_BYTES = FEATURE_DIM * 4
HEAD_HIDDEN = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayout:
    """Shape of a generated head: one linear layer from `hidden` units to `num_classes` scores."""

    num_classes: int
    hidden: int = HEAD_HIDDEN

    @property
    def num_params(self) -> int:
        """Number of generated parameters: weights first, row by row, then the bias."""
        return self.num_classes * (self.hidden + 1)

    @property
    def num_bytes(self) -> int:
        """Size of one head in float32, in bytes (`num_params` x 4)."""
        return 4 * self.num_params

    def split(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """View flat heads (n, num_params) as weights (n, classes, hidden) and biases (n, classes).

        Raises:
            HeadLayoutError: the last axis does not hold `num_params` values.
        """
        if flat.ndim != 2 or flat.shape[1] != self.num_params:
            raise HeadLayoutError(
                f"a head of {self.num_classes} classes x {self.hidden} hidden units has {self.num_params} "
                f"parameters, got an array of shape {flat.shape}; generator and device must be of one model"
            )
        num_weights = self.num_classes * self.hidden
        weight = flat[:, :num_weights].reshape(len(flat), self.num_classes, self.hidden)
        return weight, flat[:, num_weights:]


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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadReply:
    """What the cloud answers: the weights of one head a feature.

    `weight` has shape (n, classes, hidden), `bias` (n, classes), both float32.
    """

    weight: np.ndarray
    bias: np.ndarray
    model_version: str

    @property
    def layout(self) -> HeadLayout:
        """Shape of each head in the reply."""
        return HeadLayout(num_classes=self.weight.shape[1], hidden=self.weight.shape[2])

    def to_bytes(self) -> bytes:
        """Encode as a safetensors file with the model version in its metadata."""
        # Weights and bias are views into one flat array; safetensors wants each contiguous.
        tensors = {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}
        return safetensors.numpy.save(tensors, metadata={"model_version": self.model_version})

    @classmethod
    def from_bytes(
        cls, body: bytes, *, expected: HeadLayout, num_heads: int, model_version: str
    ) -> "HeadReply":
        """Decode a reply and check it against the head the device can hold.

        Raises:
            HeadLayoutError: not a safetensors file, or tensors of other names, types or shapes.
        """
        try:
            tensors = safetensors.numpy.load(body)
        except safetensors.SafetensorError as error:
            raise HeadLayoutError(
                f"the reply of {len(body)} bytes is no safetensors file: {error}"
            ) from error
        shapes = {
            "weight": (num_heads, expected.num_classes, expected.hidden),
            "bias": (num_heads, expected.num_classes),
        }
        for name, shape in shapes.items():
            got = tensors[name].shape if name in tensors else "nothing"
            if got != shape or tensors[name].dtype != np.float32:
                raise HeadLayoutError(
                    f"the reply's {name!r} must be float32 of shape {shape}, got {got}; "
                    "the generator serves another model than the one on the device"
                )
        return cls(weight=tensors["weight"], bias=tensors["bias"], model_version=model_version)


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
