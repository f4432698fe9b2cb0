"""The generator in virtual time: a batch queue with service times measured in a real run."""

from dataclasses import dataclass

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudModel:
    """Replicas that serve one queue in batches, first come first served.

    A free replica takes up to `max_batch` waiting heads and is busy for `batch_s + n * head_s` seconds. No
    batch waits for more heads. The defaults were measured on one replica on one core, over HTTP, in float32
    (docs/results); `hyperfleet plan` fits them to your service.

    Attributes:
        replicas: number of generator replicas.
        max_batch: heads generated together.
        batch_s: fixed time per batch, in seconds.
        head_s: additional time per head, in seconds.
        max_waiting: queue length from which requests are refused with 429.

    Raises:
        ConfigError: a value out of range.
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
                "CloudModel.batch_s and head_s are both 0, expected at least one of them above 0 seconds"
            )

    def service_s(self, num_heads: int) -> float:
        """Return the service time of a batch of `num_heads`, in seconds."""
        return self.batch_s + num_heads * self.head_s

    @property
    def max_heads_per_s(self) -> float:
        """Heads per second of all replicas with full batches."""
        return self.replicas * self.max_batch / self.service_s(self.max_batch)
