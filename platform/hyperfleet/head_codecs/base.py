"""What a codec is given and what it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hyperfleet.errors import HeadLayoutError
from hyperfleet.head_codecs.base_head import BaseHead
from hyperfleet.head_codecs.catalogue import CODECS
from hyperfleet.head_codecs.heads import Heads
from hyperfleet.head_codecs.layout import HeadLayout

GeneratedForm = Literal["full", "low_rank", "film"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedHeads:
    """What a generator made for n features, before it is decided how it travels.

    Attributes:
        layout: shape of each head.
        form: what `numbers` are: whole heads, factors of offsets, or modulations.
        numbers: (n, k) as the hypernetwork emitted them; whole heads include the static one.
        base: the static head that offsets are meant to be added to; None where there is none.
        whole: multiplies the numbers out to whole heads (n, num_params).
    """

    layout: HeadLayout
    form: GeneratedForm
    numbers: Float[Tensor, "head number"]
    base: BaseHead | None
    whole: Callable[[], Float[Tensor, "head param"]]

    def __len__(self) -> int:
        return len(self.numbers)

    def offsets(self) -> Float[Tensor, "head param"]:
        """Return the whole heads less the static one.

        Raises:
            HeadLayoutError: there is no static head.
        """
        if self.base is None:
            raise HeadLayoutError(
                "this model generates whole heads without a static one, so there is no offset to send; "
                "use fp32, fp16, bf16 or int8"
            )
        return self.whole() - self.base.flat


@runtime_checkable
class HeadCodec(Protocol):
    """One way for heads to cross the link."""

    @property
    def name(self) -> str:
        """What a client asks for."""
        ...

    @property
    def needs_base(self) -> bool:
        """Whether the device adds what arrives to its own static head."""
        ...

    def carries(self, form: GeneratedForm, layout: HeadLayout) -> bool:
        """Tell whether heads of this form and layout can travel so."""
        ...

    def num_bytes(self, layout: HeadLayout) -> int:
        """Return the size of one head's tensors in bytes, without the safetensors header."""
        ...

    def encode(self, generated: GeneratedHeads) -> dict[str, Tensor]:
        """Return the tensors that travel, each with the heads along its first axis."""
        ...

    def decode(self, tensors: Mapping[str, Tensor], layout: HeadLayout, base: BaseHead | None) -> Heads:
        """Return the heads that `encode` made the tensors of, without blowing them up.

        Raises:
            HeadLayoutError: tensors of other names, types or shapes, or no static head where one is needed.
        """
        ...

    def error_bound(self, generated: GeneratedHeads) -> Float[Tensor, " head"]:
        """Bound, for each head, the Euclidean norm of (decoded - generated) over all its parameters."""
        ...


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[object, ...]]) -> int:
    """Make sure that `tensors` have the names, types and shapes of `expected` and return how many heads.

    `expected` maps a name to (dtype, size of each axis but the first).

    Raises:
        HeadLayoutError: they do not, or the tensors hold different numbers of heads.
    """
    got = {name: (tensor.dtype, *tensor.shape[1:]) for name, tensor in tensors.items()}
    counts = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors.values()}
    if got != dict(expected) or len(counts) != 1:
        raise HeadLayoutError(
            f"the reply holds {_describe(got)} for {sorted(counts)} heads, expected {_describe(expected)}; "
            "the generator serves another model than the one on the device, or another codec than asked for"
        )
    return counts.pop()


def _describe(tensors: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in sorted(tensors.items())) or "nothing"


def needed_base(base: BaseHead | None, codec: str) -> BaseHead:
    """Return `base`.

    Raises:
        HeadLayoutError: it is None.
    """
    if base is None:
        raise HeadLayoutError(
            f"codec {codec!r} sends what is added to the static head; give the device's own as `base`, "
            "or ask for fp32, fp16, bf16 or int8"
        )
    return base


def codecs_of(form: GeneratedForm, layout: HeadLayout, *, has_base: bool) -> tuple[str, ...]:
    """Return the names of the codecs that heads of this form and layout can travel in."""
    return tuple(
        name
        for name, each in CODECS.items()
        if (has_base or not each.needs_base) and each.carries(form, layout)
    )
