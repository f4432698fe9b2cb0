"""What every method is: a model, the stages that train it, and the loss of each stage."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from hyperfleet.errors import ConfigError
from hyperfleet.nn import DeviceModel, HeadGenerator

# The stage that every method begins with, unless it starts from a model that has been through it.
WARM = "warm"


class VideoQAModel(nn.Module):
    """The device model and, for methods that personalize, the head generator in the cloud."""

    def __init__(self, device: DeviceModel, generator: HeadGenerator | None) -> None:
        super().__init__()
        self.device = device
        self.generator = generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        name: what the method calls it; `Method.losses` switches on it.
        trains: prefixes of the parameters that move, e.g. `("device", "generator.f_h")`; the rest is
            frozen. Where nothing of the encoder moves, its features are computed once and kept.
        epochs: passes over the training split.
        learning_rate: peak of the polynomial decay.
        generator_rate: factor on it for the generator's parameters. Each generated weight is a sum over
            192 of them, so that a step of Adam's size moves a head much further than the same step on
            the head itself.
    """

    name: str
    trains: tuple[str, ...]
    epochs: int
    learning_rate: float
    generator_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.learning_rate > 0 or not self.generator_rate > 0:
            raise ConfigError(
                f"stage {self.name!r} needs epochs >= 0 and learning rates > 0, got epochs={self.epochs}, "
                f"learning_rate={self.learning_rate}, generator_rate={self.generator_rate}"
            )

    def rate_of(self, parameter: str) -> float:
        """Return the peak learning rate of the parameter called `parameter`."""
        return self.learning_rate * (self.generator_rate if parameter.startswith("generator.") else 1.0)

    def moves(self, parameter: str) -> bool:
        """Tell whether the parameter called `parameter` is trained in this stage."""
        return any(parameter == prefix or parameter.startswith(prefix + ".") for prefix in self.trains)

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the encoder's features stay the same throughout the stage."""
        return not self.moves("device.encoder.x")


@runtime_checkable
class Method(Protocol):
    """A way to train a model; stateless, so that one instance serves every run."""

    name: str
    personalizes: bool

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Return the stages in order: `warm_epochs` shared by all methods, then `epochs` of its own."""
        ...

    def losses(
        self,
        model: VideoQAModel,
        stage: str,
        features: Float[Tensor, "sample frame 192"],
        labels: Int[Tensor, " sample"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted terms of the stage's loss for frame features F_m."""
        ...

    def logits(
        self,
        model: VideoQAModel,
        features: Float[Tensor, "sample frame 192"],
        anchor: Float[Tensor, "sample 192"],
    ) -> Float[Tensor, "sample class"]:
        """Return the scores at inference, where `anchor` is the one uploaded feature of each sample."""
        ...
