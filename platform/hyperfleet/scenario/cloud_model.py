"""How long the generator takes in virtual time: what a real run measured, as a model of a batch queue."""

from dataclasses import dataclass

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudModel:
    """Replicas that serve one queue in batches, first come first served.

    A replica that is free takes up to `max_batch` of the heads that wait and is busy for
    `batch_s + n * head_s` seconds: no batch waits for more heads to come. The defaults are those of one
    replica on one core over HTTP in float32 (docs/results.md); `hyperfleet plan` measures yours.

    Attributes:
        replicas: of the generator.
        max_batch: heads generated together.
        batch_s: seconds a batch takes, however small.
        head_s: seconds that each head adds.
        max_waiting: heads that may wait before requests are refused with 429.

    Raises:
        ConfigError: a value that no service has.
    """

    replicas: int = 1
    max_batch: int = 64
    batch_s: float = 0.007
    head_s: float = 0.0022
    max_waiting: int = 256

    def __post_init__(self) -> None:
        for name in ("replicas", "max_batch", "max_waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"CloudModel.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("batch_s", "head_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"CloudModel.{name} must be finite and >= 0 seconds, got {getattr(self, name)}"
                )
        if self.batch_s + self.head_s == 0:
            raise ConfigError(
                "CloudModel.batch_s and head_s are both 0; a generator that takes no time is none"
            )

    def service_s(self, num_heads: int) -> float:
        """Return the seconds that a batch of `num_heads` takes."""
        return self.batch_s + num_heads * self.head_s

    @property
    def max_heads_per_s(self) -> float:
        """Heads a second that all replicas make at full batches."""
        return self.replicas * self.max_batch / self.service_s(self.max_batch)
