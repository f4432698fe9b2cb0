"""Configuration of a training run; its checks need no torch."""

from dataclasses import dataclass

from hyperfleet.datasets.task_names import OPEN_ENDED_QA, TASK_NAMES
from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.methods.catalogue import FRAMES_READ, METHODS
from hyperfleet.methods.stage import Stage, published_schedule
from hyperfleet.nn.encoder_config import ENCODERS

# Raise it where a change makes the same configuration train another model: old cells and checkpoints are
# refused then instead of being mixed with new ones.
TRAINING_REVISION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Model and schedule of a training run.

    Attributes:
        method: cdc_mmpg, stable_synth_net, fine_tuning, ...; the error for a wrong name lists all.
        task: open-ended-qa, multiple-choice or retrieval.
        encoder: tiny or all_in_one_ti.
        num_frames: frames read per clip; none takes those of method and encoder (5 for DUET, else 3).
        captions_per_video: captions per clip that retrieval and multiple choice train on; none takes all.
        pretrained: All-in-One checkpoint that the encoder starts from; none takes DeiT and BERT from the
            local caches where they fit the encoder, and random weights otherwise.
        seed: root of every random draw.
        warm_epochs: epochs of the static model's training, which every method starts from.
        epochs: epochs of the method's own stages.
        published_schedule: the papers' stages instead: `warm_epochs` of the method's first stage at a
            fifth of the rate, then `epochs` of its last; no training is shared.
        batch_size: samples per step over all workers together.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        warm_up_fraction: share of the steps in which the learning rate rises.

    Raises:
        ConfigError: a value out of range, or an unknown name.
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
    published_schedule: bool = False
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
            raise ConfigError(f"TrainConfig.warm_up_fraction must be in [0, 1], got {self.warm_up_fraction}")
        reads = FRAMES_READ.get(self.method)
        if reads is not None and self.num_frames not in (None, reads):
            raise ConfigError(
                f"TrainConfig.num_frames: {self.method} reads {reads} frames per clip, "
                f"got {self.num_frames}; leave it out"
            )

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the method that have at least one epoch."""
        stages = METHODS[self.method].stages(
            warm_epochs=self.warm_epochs,
            # The published schedule replaces these numbers; methods may need two for theirs.
            epochs=max(2, self.epochs) if self.published_schedule else self.epochs,
            learning_rate=self.learning_rate,
        )
        if self.published_schedule:
            stages = published_schedule(
                stages,
                first_epochs=self.warm_epochs,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
            )
        return tuple(stage for stage in stages if stage.epochs > 0)
