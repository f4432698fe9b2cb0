"""Interface of a head codec, and the generated heads that it encodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hyperfleet.errors import HeadLayoutError
from hyperfleet.head_codecs.heads import BaseHead, Heads
from hyperfleet.head_codecs.layout import HeadLayout

GeneratedForm = Literal["full", "low_rank", "film"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedHeads:
    """Heads generated for n features, before a codec is chosen.

    Attributes:
        layout: shape of each head.
        form: meaning of `numbers`: full heads, factors of offsets, or modulations.
        numbers: (n, k) as the hypernetwork emitted them; full heads include the static one.
        base: the static head that offsets are added to; None if there is none.
        full: multiplies the numbers out to full heads (n, num_params).
    """

    layout: HeadLayout
    form: GeneratedForm
    numbers: Float[Tensor, "head number"]
    base: BaseHead | None
    full: Callable[[], Float[Tensor, "head param"]]

    def __len__(self) -> int:
        return len(self.numbers)

    def offsets(self) -> Float[Tensor, "head param"]:
        """Return the full heads minus the static one.

        Raises:
            HeadLayoutError: there is no static head.
        """
        if self.base is None:
            raise HeadLayoutError(
                "this model generates full heads without a static one, so there is no offset to send; "
                "use fp32, fp16, bf16 or int8"
            )
        return self.full() - self.base.flat


@runtime_checkable
class HeadCodec(Protocol):
    """One encoding in which heads cross the link."""

    @property
    def name(self) -> str:
        """Name that clients request the codec by."""
        ...

    @property
    def needs_base(self) -> bool:
        """Whether the device adds the decoded numbers to its own static head."""
        ...

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """Return whether the codec can carry heads of this form and layout."""
        ...

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return the size of one head's tensors in bytes, without the safetensors header."""
        ...

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Return the tensors to send, each with the heads along its first axis."""
        ...

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> Heads:
        """Return the heads in encoded `tensors`, without multiplying them out.

        Raises:
            HeadLayoutError: wrong names, types or shapes of tensors, or no static head where one is needed.
        """
        ...

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Bound the Euclidean norm of (decoded - generated) over all parameters, per head."""
        ...


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[object, ...]]) -> None:
    """Check that `tensors` have the names, types and shapes of `expected`, for the same number of heads.

    `expected` maps a name to (dtype, size of each axis but the first).

    Raises:
        HeadLayoutError: they differ, or the tensors hold different numbers of heads.
    """
    got = {name: (tensor.dtype, *tensor.shape[1:]) for name, tensor in tensors.items()}
    counts = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors.values()}
    if got != dict(expected) or len(counts) != 1:
        raise HeadLayoutError(
            f"the reply holds {_describe(got)} for {sorted(counts)} heads, expected {_describe(expected)}; "
            "the generator serves a model other than the device's, or uses a codec other than the requested "
            "one"
        )


def _describe(tensors: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in sorted(tensors.items())) or "nothing"


def needed_base(base: BaseHead | None, codec: str) -> BaseHead:
    """Return `base`.

    Raises:
        HeadLayoutError: it is None.
    """
    if base is None:
        raise HeadLayoutError(
            f"codec {codec!r} sends an addition to the static head; pass the device's own as `base`, "
            "or request fp32, fp16, bf16 or int8"
        )
    return base
