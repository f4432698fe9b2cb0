"""Configuration of a training run; its checks need no torch."""

from dataclasses import dataclass

from hyperfleet.datasets.task_names import OPEN_ENDED_QA, TASK_NAMES
from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.methods.catalogue import FRAMES_READ, METHODS
from hyperfleet.methods.stage import Stage
from hyperfleet.nn.encoder_config import ENCODERS


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What is trained, on what, for how long.

    `warm_epochs` is the static model's training that every method starts from, `epochs` the method's
    own. `batch_size` counts samples over all workers together. `num_frames` frames of each clip are
    seen; None takes what the method and the encoder want (5 for DUET, 3 otherwise). Retrieval and
    multiple choice train on the first `captions_per_video` captions of each clip, None on all.
    `pretrained` is an All-in-One checkpoint that the encoder starts from; None takes DeiT and BERT from
    the local caches where they fit the encoder, and random weights otherwise.
    """

    method: str = "cdc_mmpg"
    task: str = OPEN_ENDED_QA
    encoder: str = "tiny"
    num_frames: int | None = None
    captions_per_video: int | None = None
    pretrained: str | None = None
    seed: int = 0
    warm_epochs: int = 4
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.task not in TASK_NAMES:
            raise unknown_name("task", self.task, TASK_NAMES)
        METHODS.check(self.method)
        if self.encoder not in ENCODERS:
            raise unknown_name("encoder", self.encoder, ENCODERS)
        if self.num_frames is not None and self.num_frames < 1:
            raise ConfigError(f"TrainConfig.num_frames must be at least 1 or None, got {self.num_frames}")
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TrainConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.warm_epochs < 0:
            raise ConfigError(f"TrainConfig.warm_epochs must be >= 0, got {self.warm_epochs}")
        if not self.learning_rate > 0:
            raise ConfigError(f"TrainConfig.learning_rate must be > 0, got {self.learning_rate}")
        if not 0 <= self.warm_up_fraction <= 1:
            raise ConfigError(f"TrainConfig.warm_up_fraction must lie in [0, 1], got {self.warm_up_fraction}")
        reads = FRAMES_READ.get(self.method)
        if reads is not None and self.num_frames not in (None, reads):
            raise ConfigError(
                f"TrainConfig.num_frames: {self.method} reads {reads} frames per clip, "
                f"got {self.num_frames}; leave it out"
            )

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the method, without those of no epoch."""
        stages = METHODS[self.method].stages(
            warm_epochs=self.warm_epochs, epochs=self.epochs, learning_rate=self.learning_rate
        )
        return tuple(stage for stage in stages if stage.epochs > 0)
