"""Generator of heads from uploaded features, without any server."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from hyperfleet.bundle import load_generator
from hyperfleet.cloud.emitter import Emitter, HalfEmitter
from hyperfleet.errors import ConfigError, FeatureError, ServiceError
from hyperfleet.head_codecs import CODECS, BaseHead, GeneratedForm, GeneratedHeads
from hyperfleet.messages import FEATURE_DIM, HeadLayout, HeadRequest
from hyperfleet.nn import HeadGenerator

# Classes per tile: 6 MB for 512 heads, which stay in the cache until they are applied, beside those of a
# second process. Smaller tiles make more and slower products; larger ones gain nothing.
CLASSES_PER_TILE = 32

Weights = Literal["fp32", "fp16"]


@contextlib.contextmanager
def _torch_threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class HeadTile(NamedTuple):
    """Some classes of several full heads: weights (n, c, 96) and biases (n, c), from class `first` on."""

    first: int
    weight: Float32[np.ndarray, "head class hidden"]
    bias: Float32[np.ndarray, "head class"]


class ParameterGenerator:
    """Generates heads with a trained `HeadGenerator` on the CPU.

    Args:
        module: the generator, with its weights.
        num_threads: threads that torch may use for one call.
        packed: see `Emitter`; doubles the memory. Ignored with "fp16".
        weights: type of the last layer's weights, see `HalfEmitter`.

    Raises:
        ConfigError: fewer than one thread, or weights that cannot be kept in this type.
    """

    def __init__(
        self,
        module: HeadGenerator,
        *,
        num_threads: int = 1,
        packed: bool = True,
        weights: Weights = "fp32",
    ) -> None:
        if num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1, got {num_threads}")
        self._module = module.eval()
        self._num_threads = num_threads
        emitter = module.emitter
        self.base = (
            BaseHead(layout=module.layout, flat=module.base.detach()) if module.config.static_base else None
        )
        bias = emitter.bias.detach()
        if self.base is not None and module.config.form == "full":
            # The layer's bias adds the static head without a second pass over the heads.
            bias = bias + self.base.flat
        # Names of the codecs that can carry these heads; every request reads them.
        self.codecs = codecs_of(module.config.form, module.layout, has_base=self.base is not None)
        self._emit: Emitter | HalfEmitter = (
            HalfEmitter(emitter.weight, bias)
            if weights == "fp16"
            else Emitter(emitter.weight, bias, packed=packed)
        )

    @classmethod
    def from_bundle(
        cls, bundle_dir: Path, *, num_threads: int = 1, weights: Weights = "fp32"
    ) -> "ParameterGenerator":
        """Load the generator of a bundle folder.

        Raises:
            CheckpointError: no bundle, one without a generator, or weights that differ from its config.
            ConfigError: see the class.
        """
        return cls(load_generator(bundle_dir), num_threads=num_threads, weights=weights)

    @property
    def layout(self) -> HeadLayout:
        """Shape of each generated head."""
        return self._module.layout

    @property
    def form(self) -> GeneratedForm:
        """Form of the generated numbers."""
        return self._module.config.form

    def pack(self) -> None:
        """Make the copy of the last layer that `packed=False` left out."""
        if isinstance(self._emit, Emitter):
            self._emit.pack()

    def generate(self, features: np.ndarray) -> GeneratedHeads:
        """Generate one head per feature (n, 192), float32.

        Raises:
            FeatureError: wrong shape or type, or values not finite or too large for the model.
        """
        with self._computing():
            return self._generated(self._emit(self._embedded(features)))

    def tiles(self, features: np.ndarray) -> Iterator[HeadTile]:
        """Generate one full head per feature (n, 192), `CLASSES_PER_TILE` classes at a time.

        For heads that are applied at once and not kept: they are never in memory in full. Each tile
        overwrites the one before. NumPy's threads compute the products.

        Raises:
            ConfigError: the generator makes no full heads, or has weights in fp16.
            FeatureError: wrong shape or type, or values not finite or too large for the model.
        """
        if self.form != "full":
            raise ConfigError(f"a generator of {self.form} heads makes no tiles of full ones; use generate")
        emit = self._emit
        if not isinstance(emit, Emitter):
            raise ConfigError("a generator with weights='fp16' makes no tiles; use weights='fp32'")
        with self._computing():
            embedded = self._embedded(features)
        number, layout = len(embedded), self.layout
        bias = np.empty((number, layout.num_classes), np.float32)
        emit.part(embedded, slice(layout.num_weights, layout.num_params), bias)
        memory = np.empty((number, CLASSES_PER_TILE * layout.hidden), np.float32)
        for first in range(0, layout.num_classes, CLASSES_PER_TILE):
            end = min(first + CLASSES_PER_TILE, layout.num_classes)
            which = slice(first * layout.hidden, end * layout.hidden)
            numbers = memory[:, : which.stop - which.start]
            emit.part(embedded, which, numbers)
            weight = numbers.reshape(number, end - first, layout.hidden)
            yield HeadTile(first=first, weight=weight, bias=bias[:, first:end])

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        # Both settings belong to the calling thread.
        with _torch_threads(self._num_threads), torch.inference_mode():
            yield

    def _embedded(self, features: np.ndarray) -> Float[Tensor, "head embed"]:
        # torch needs writable memory, which a view of a request's bytes is not.
        anchors = torch.from_numpy(
            np.require(HeadRequest(features=features).features, requirements=["C", "W"])
        )
        embedded: Tensor = self._module.embed(self._module.reason(anchors))
        if not embedded.isfinite().all():
            raise FeatureError(
                f"features as large as {anchors.abs().max():.3g} overflow the generator; encoders of "
                "this model return values of a few units"
            )
        return embedded

    def generate_each(self, groups: Sequence[np.ndarray]) -> list[GeneratedHeads]:
        """Generate heads for several groups of features in one product; each group gets a view.

        Raises:
            FeatureError: wrong shape or type, or a value that is not finite.
        """
        numbers = self.generate(np.concatenate(groups)).numbers
        return [self._generated(own) for own in numbers.split([len(each) for each in groups])]

    def _generated(self, numbers: Float[Tensor, "head number"]) -> GeneratedHeads:
        form = self.form

        def full() -> Float[Tensor, "head param"]:
            return numbers if form == "full" else self._module.form.materialise(numbers, self._module.base)

        return GeneratedHeads(layout=self.layout, form=form, numbers=numbers, base=self.base, full=full)

    def check(self) -> None:
        """Generate one head and check that it can be used.

        Raises:
            ServiceError: the head has values that are not finite.
        """
        head = self.generate(np.zeros((1, FEATURE_DIM), dtype=np.float32)).full()
        if not head.isfinite().all():
            raise ServiceError(
                "the generator makes heads with NaN or infinite values; its weights are damaged or training "
                "diverged: serve another version"
            )


def codecs_of(form: GeneratedForm, layout: HeadLayout, *, has_base: bool) -> tuple[str, ...]:
    """Return the names of the codecs that can carry heads of this form and layout."""
    return tuple(
        name
        for name, each in CODECS.items()
        if (has_base or not each.needs_base) and each.carries(form, layout)
    )
