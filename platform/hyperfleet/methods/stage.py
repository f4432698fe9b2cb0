"""One stage of a method's training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hyperfleet.errors import ConfigError

# The stage that most methods begin with, unless they start from a model that has been through it.
WARM = "warm"
# 2e-5 against 1e-4 in both papers.
PUBLISHED_FIRST_RATE = 0.2
# What writes heads: the projector and the hypernetwork.
ADAPTOR = ("generator.f_p", "generator.f_h")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of training.

    Attributes:
        name: its name within the method; `Method.losses` switches on it.
        trains: prefixes of the trained parameters, e.g. `("device", "generator.f_h")`; the rest is
            frozen. If the whole encoder is frozen, its features are computed once and stored.
        epochs: passes over the training split.
        learning_rate: peak of the polynomial decay.
        rate_left: share of the peak that the decay ends at, where a later stage goes on from it.
        generator_rate: factor on it for f_p and f_h. Each generated weight is a sum over 192 of their
            parameters, so that a step of Adam's size moves a head much further than the same step on the
            head itself. Readers before them (ADR, DUET's GRU and MLP) learn at the stage's rate.
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
        return self.learning_rate * (self.generator_rate if part_of(parameter) == "adaptor" else 1.0)

    def moves(self, parameter: str) -> bool:
        """Return whether the parameter called `parameter` is trained in this stage."""
        return any(parameter == prefix or parameter.startswith(prefix + ".") for prefix in self.trains)

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the encoder's features stay the same throughout the stage."""
        return not any(prefix == "device" or prefix.startswith("device.encoder") for prefix in self.trains)


def published_schedule(
    stages: Sequence[Stage], *, first_epochs: int, epochs: int, learning_rate: float
) -> tuple[Stage, ...]:
    """Return the papers' schedule of a method's stages, without the stage that methods share here.

    Both papers print 10 epochs at 2e-5 for the ADR or the contrastive losses and 40 epochs at 1e-4 for the
    rest. `first_epochs` is the number of the former, `learning_rate` the rate of the latter.
    """
    *first, last = (stage for stage in stages if stage.name != WARM)
    rate = PUBLISHED_FIRST_RATE * learning_rate
    return (
        *(
            replace(stage, epochs=first_epochs, learning_rate=rate, rate_left=0.0, batch_factor=1)
            for stage in first
        ),
        replace(last, epochs=epochs, learning_rate=learning_rate),
    )


def part_of(parameter: str) -> str:
    """Return the part of a parameter: `device`, or the generator's `reader` or `adaptor`."""
    if not parameter.startswith("generator."):
        return "device"
    return "adaptor" if parameter.startswith(tuple(f"{prefix}." for prefix in ADAPTOR)) else "reader"
