"""Training without Ray: the loop that Ray Train runs in each of its workers, callable on its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyperfleet.bundle import BundleConfig
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.optimisation import adamw, warm_up_then_decay
from hyperfleet.errors import ConfigError
from hyperfleet.methods import Method, Stage, VideoQAModel, method
from hyperfleet.seeding import numpy_generator, torch_generator
from hyperfleet.tasks.open_ended_qa import num_correct

Losses = dict[str, Tensor]

# A step on kept features costs so little that starting it would dominate: they come in larger batches.
CACHED_BATCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What is trained, on what, for how long.

    `warm_epochs` is the static model's training that every method starts from, `epochs` the method's
    own. `batch_size` counts samples over all workers together.
    """

    method: str = "cdc_mmpg"
    encoder: str = "tiny"
    seed: int = 0
    warm_epochs: int = 4
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up_fraction: float = 0.1

    def __post_init__(self) -> None:
        method(self.method)
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TrainConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.warm_epochs < 0:
            raise ConfigError(f"TrainConfig.warm_epochs must be >= 0, got {self.warm_epochs}")
        if not self.learning_rate > 0:
            raise ConfigError(f"TrainConfig.learning_rate must be > 0, got {self.learning_rate}")
        if not 0 <= self.warm_up_fraction <= 1:
            raise ConfigError(f"TrainConfig.warm_up_fraction must lie in [0, 1], got {self.warm_up_fraction}")

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the method, without those of no epoch."""
        stages = method(self.method).stages(
            warm_epochs=self.warm_epochs, epochs=self.epochs, learning_rate=self.learning_rate
        )
        return tuple(stage for stage in stages if stage.epochs > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far a run is: the stage, the next epoch in it, and the optimiser steps made so far."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """What one epoch brought; `metrics` holds mean losses and `validation_accuracy`."""

    stage: str
    position: Position
    metrics: dict[str, float]
    is_best: bool
    ends_stage: bool


class Objective(nn.Module):
    """Model, method and stage as one module from batch to losses, so that DDP can wrap it."""

    def __init__(self, model: VideoQAModel, method: Method, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.stage = stage

    def forward(self, batch: dict[str, Tensor]) -> Losses:
        """Return the weighted losses of a batch of raw samples, or of features that were kept."""
        features = batch.get("features")
        if features is None:
            features = self.model.device.encode(batch["frames"], batch["token_ids"], batch["token_mask"])
        return self.method.losses(self.model, self.stage.name, features, batch["labels"])


def train_step(objective: nn.Module, batch: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> Losses:
    """One optimiser step; returns the detached losses and their sum as `total`."""
    losses: Losses = objective(batch)
    total = torch.stack(list(losses.values())).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    nn.utils.clip_grad_norm_([p for p in objective.parameters() if p.requires_grad], 1.0)
    optimiser.step()
    return {**{name: loss.detach() for name, loss in losses.items()}, "total": total.detach()}


def _identity(module: nn.Module) -> nn.Module:
    return module


@dataclass(kw_only=True)
class Trainer:
    """Runs the stages of one method on one worker of `world_size`.

    `wrap` puts the objective into DistributedDataParallel where there are several workers. Batches are
    drawn for all workers together and then shared out, so the samples of a step do not depend on how
    many workers there are.
    """

    config: TrainConfig
    model: VideoQAModel
    train: BatchSource
    validation: BatchSource
    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = _identity
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    optimiser: torch.optim.AdamW | None = None
    best_accuracy: float = -1.0

    def run(
        self,
        *,
        start: Position | None = None,
        restore: Callable[[torch.optim.AdamW], None] | None = None,
        on_step: Callable[[Position, int], None] | None = None,
    ) -> Iterator[EpochResult]:
        """Train, yielding after every epoch; `start` and `restore` go on where a checkpoint ended."""
        start = start or Position()
        step = start.step
        for index, stage in enumerate(self.config.stages()):
            if index < start.stage:
                continue
            first = start.epoch if index == start.stage else 0
            num_batches = self._num_batches(stage)
            objective, scheduler = self._enter(stage, num_batches, first, restore if first else None)
            cached = self.features(self.train) if stage.encoder_is_frozen else None
            for epoch in range(first, stage.epochs):
                self._seed(stage, epoch)
                sums: dict[str, float] = {}
                for batch in self._batches(stage, epoch, cached):
                    assert self.optimiser is not None
                    for name, loss in train_step(objective, batch, self.optimiser).items():
                        sums[name] = sums.get(name, 0.0) + float(loss)
                    scheduler.step()
                    step += 1
                    if on_step is not None:
                        on_step(Position(stage=index, epoch=epoch, step=step), num_batches)
                yield self._finish_epoch(
                    index, stage, epoch, step, {k: v / num_batches for k, v in sums.items()}
                )

    def num_steps(self, start: Position) -> int:
        """Return the step at which the run ends when it goes on from `start`."""
        left = self.config.stages()[start.stage :]
        done = start.epoch * self._num_batches(left[0]) if left else 0
        return start.step + sum(stage.epochs * self._num_batches(stage) for stage in left) - done

    def _batch_size(self, stage: Stage) -> int:
        return self.config.batch_size * (CACHED_BATCHES if stage.encoder_is_frozen else 1)

    def _num_batches(self, stage: Stage) -> int:
        return self.train.num_batches(self._batch_size(stage))

    def _enter(
        self,
        stage: Stage,
        num_batches: int,
        first_epoch: int,
        restore: Callable[[torch.optim.AdamW], None] | None,
    ) -> tuple[nn.Module, torch.optim.lr_scheduler.LambdaLR]:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(stage.moves(name))
        self.model.train()
        self.optimiser = adamw(
            ((p, stage.rate_of(name)) for name, p in self.model.named_parameters() if p.requires_grad),
            weight_decay=self.config.weight_decay,
        )
        if restore is not None:
            restore(self.optimiser)
        scheduler = warm_up_then_decay(
            self.optimiser,
            num_steps=stage.epochs * num_batches,
            warm_up_fraction=self.config.warm_up_fraction,
            first_step=first_epoch * num_batches,
        )
        return self.wrap(Objective(self.model, method(self.config.method), stage)), scheduler

    def _seed(self, stage: Stage, epoch: int) -> None:
        # Seeding each epoch anew lets a resumed run draw what the undisturbed one would have drawn.
        generator = torch_generator(self.config.seed, "train", stage.name, epoch, self.rank)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        self.model.train()

    def _batches(self, stage: Stage, epoch: int, cached: Tensor | None) -> Iterator[dict[str, Tensor]]:
        rng = numpy_generator(self.config.seed, "epoch", stage.name, epoch)
        draw = numpy_generator(self.config.seed, "augment", stage.name, epoch)
        share = slice(self.rank, None, self.world_size)
        for samples in self.train.shuffled(rng, self._batch_size(stage)):
            if cached is not None:
                own = samples[share]
                batch = {"features": cached[torch.from_numpy(own)], "labels": self.train.labels(own)}
            else:
                batch = self.train.batch(samples, draw, share)
            yield {name: tensor.to(self.torch_device) for name, tensor in batch.items()}

    @torch.inference_mode()
    def features(self, source: BatchSource) -> Float[Tensor, "sample frame 192"]:
        """Return F_m of every sample of `source`, each worker computing its share."""
        self.model.eval()
        num_samples = len(source)
        own = np.arange(self.rank, num_samples, self.world_size)
        parts = [
            self.model.device.encode(
                *(batch[k].to(self.torch_device) for k in ("frames", "token_ids", "token_mask"))
            )
            for batch in source.in_order(own, 4 * self.config.batch_size)
        ]
        features = torch.cat(parts).cpu()
        everything = features.new_zeros(num_samples, *features.shape[1:])
        everything[torch.from_numpy(own)] = features
        self._sum_over_workers(everything)
        # A tensor born in inference mode cannot enter autograd; the clone is made outside of it.
        with torch.inference_mode(False):
            return everything.clone()

    @torch.inference_mode()
    def accuracy(self, source: BatchSource) -> float:
        """Return the share of `source` answered right; out-of-vocabulary answers count as wrong."""
        features = self.features(source)
        anchors = numpy_generator(self.config.seed, "validation anchor").integers(
            features.shape[1], size=len(source)
        )
        correct = torch.zeros((), dtype=torch.int64)
        chosen = method(self.config.method)
        for start in range(0, len(source), 1024):
            part = features[start : start + 1024].to(self.torch_device)
            anchor = part[torch.arange(len(part)), torch.from_numpy(anchors[start : start + 1024])]
            labels = source.labels(np.arange(start, start + len(part))).to(self.torch_device)
            correct += num_correct(chosen.logits(self.model, part, anchor), labels).cpu()
        return float(correct) / len(source)

    def _sum_over_workers(self, tensor: Tensor) -> None:
        if self.world_size > 1:
            on_device = tensor.to(self.torch_device)
            torch.distributed.all_reduce(on_device)
            tensor.copy_(on_device)

    def _finish_epoch(
        self, index: int, stage: Stage, epoch: int, step: int, losses: dict[str, float]
    ) -> EpochResult:
        ends_stage = epoch + 1 == stage.epochs
        metrics = {f"loss_{name}": value for name, value in losses.items()}
        is_last_stage = index + 1 == len(self.config.stages())
        is_best = False
        # Accuracy cannot change while only the ADR is fitted to labels-free targets, so it is not measured.
        if "answer" in losses:
            metrics["validation_accuracy"] = self.accuracy(self.validation)
            is_best = is_last_stage and metrics["validation_accuracy"] > self.best_accuracy
            if is_best:
                self.best_accuracy = metrics["validation_accuracy"]
        after = Position(stage=index + 1) if ends_stage else Position(stage=index, epoch=epoch + 1)
        position = Position(stage=after.stage, epoch=after.epoch, step=step)
        return EpochResult(
            stage=stage.name, position=position, metrics=metrics, is_best=is_best, ends_stage=ends_stage
        )


def bundle_config(config: TrainConfig, model: VideoQAModel, task: str) -> BundleConfig:
    """Describe the model that `config` trains, for saving it."""
    return BundleConfig(
        task=task,
        method=config.method,
        seed=config.seed,
        num_classes=model.device.layout.num_classes,
        encoder=model.device.encoder.config,
        generator=model.generator.config if model.generator is not None else None,
    )
