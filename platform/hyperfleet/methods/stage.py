"""One stage of a method's training."""

from dataclasses import dataclass

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        name: what the method calls it; `Method.losses` switches on it.
        trains: prefixes of the parameters that move, e.g. `("device", "generator.f_h")`; the rest is
            frozen. Where nothing of the encoder moves, its features are computed once and kept.
        epochs: passes over the training split.
        learning_rate: peak of the polynomial decay.
        rate_left: share of the peak that the decay ends at, where a later stage goes on from it.
        generator_rate: factor on it for the generator's parameters. Each generated weight is a sum over
            192 of them, so that a step of Adam's size moves a head much further than the same step on
            the head itself.
        samples_per_category: put so many samples of a category side by side (a P x K sampler), for losses
            that compare them; None shuffles freely.
        batch_factor: how many times as large batches are, where a step costs less than starting it.
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
        """Tell whether the parameter called `parameter` is trained in this stage."""
        return any(parameter == prefix or parameter.startswith(prefix + ".") for prefix in self.trains)

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the encoder's features stay the same throughout the stage."""
        return not any(prefix == "device" or prefix.startswith("device.encoder") for prefix in self.trains)
