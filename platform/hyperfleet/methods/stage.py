"""One stage of a method's training."""

from dataclasses import dataclass

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        name: its name within the method; `Method.losses` switches on it.
        trains: prefixes of the trained parameters, e.g. `("device", "generator.f_h")`; the rest is
            frozen. If the whole encoder is frozen, its features are computed once and stored.
        epochs: passes over the training split.
        learning_rate: peak of the polynomial decay.
        rate_left: share of the peak at which the decay ends, if a later stage continues from it.
        generator_rate: factor on the learning rate of the generator's parameters. Each generated weight is a
            sum over 192 of them, so that a step of Adam's size moves a head much further than the same step
            on the head itself.
        samples_per_category: number of adjacent samples of a category (a P x K sampler), for losses that
            compare them; None shuffles freely.
        batch_factor: factor on the batch size, for steps that cost less than their launch.
    """

    name: str
    trains: tuple[str, ...]
    epochs: int
    learning_rate: float
    rate_left: float = 0.0
    generator_rate: float = 1.0
    samples_per_category: int | None = None
    batch_factor: int = 1

    def __post_init__(self) -> None:
        if self.batch_factor < 1:
            raise ConfigError(f"stage {self.name!r} needs batch_factor >= 1, got {self.batch_factor}")
        if self.epochs < 0 or not self.learning_rate > 0 or not self.generator_rate > 0:
            raise ConfigError(
                f"stage {self.name!r} needs epochs >= 0 and learning rates > 0, got epochs={self.epochs}, "
                f"learning_rate={self.learning_rate}, generator_rate={self.generator_rate}"
            )

    def rate_of(self, parameter: str) -> float:
        """Return the peak learning rate of the parameter called `parameter`."""
        return self.learning_rate * (self.generator_rate if parameter.startswith("generator.") else 1.0)

    def moves(self, parameter: str) -> bool:
        """Return whether the parameter called `parameter` is trained in this stage."""
        return any(parameter == prefix or parameter.startswith(prefix + ".") for prefix in self.trains)

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the encoder's features stay the same throughout the stage."""
        return not any(prefix == "device" or prefix.startswith("device.encoder") for prefix in self.trains)
