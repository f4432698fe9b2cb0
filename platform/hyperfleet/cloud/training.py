"""Training without Ray: the loop that Ray Train runs in each of its workers, callable on its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hyperfleet.bundle import BundleConfig
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.optimisation import adamw, warm_up_then_decay
from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.methods import Examples, Method, Stage, TaskModel, method
from hyperfleet.methods.base import outputs
from hyperfleet.methods.stage import part_of
from hyperfleet.seeding import numpy_generator, torch_generator

Losses = dict[str, Tensor]

# Samples per chunk; with 1,501 scores each, the scores take 1.5 MB and generated heads of that size 149 MB.
JUDGED_TOGETHER = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Progress of a run: the stage, its next epoch, and the optimizer steps so far."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """Result of one epoch; `metrics` holds mean losses and the task's measures on validation."""

    stage: str
    position: Position
    metrics: dict[str, float]
    is_best: bool
    ends_stage: bool


class Objective(nn.Module):
    """Model, method and stage as one module from batch to losses, so that DDP can wrap it."""

    def __init__(self, model: TaskModel, method: Method, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.stage = stage

    def forward(self, batch: dict[str, Tensor]) -> Losses:
        """Return the weighted losses of a batch of raw samples, or of features that were kept."""
        features = batch.get("features")
        if features is None:
            features = self.model.task.encode(self.model.device, batch)
        examples = Examples(features=features, labels=batch["labels"], categories=batch["categories"])
        return self.method.losses(self.model, self.stage.name, examples)


def train_step(objective: nn.Module, batch: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> Losses:
    """Make one optimizer step; return the detached losses and their sum as `total`."""
    losses: Losses = objective(batch)
    total = torch.stack(list(losses.values())).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    # Each part apart: the gradient of f_h sums over its 192 inputs and would shrink the encoder's.
    for part in {group["part"] for group in optimiser.param_groups}:
        same = [group["params"] for group in optimiser.param_groups if group["part"] == part]
        nn.utils.clip_grad_norm_([parameter for members in same for parameter in members], 1.0)
    optimiser.step()
    return {**{name: loss.detach() for name, loss in losses.items()}, "total": total.detach()}


def _identity(module: nn.Module) -> nn.Module:
    return module


@dataclass(kw_only=True)
class Trainer:
    """Runs the stages of one method on one worker of `world_size`.

    `wrap` wraps the objective in DistributedDataParallel if there are several workers. Batches are drawn
    for all workers together and then divided, so the samples of a step do not depend on the number of
    workers. `kept_validation` holds the validation split's features while the encoder is frozen.
    """

    config: TrainConfig
    model: TaskModel
    train: BatchSource
    validation: BatchSource
    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = _identity
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    optimiser: torch.optim.AdamW | None = None
    best_score: float = -1.0
    weights_origin: str = "random"
    kept_validation: Tensor | None = None

    def to(self, torch_device: torch.device) -> None:
        """Move the model, and all later computation, to a device."""
        self.torch_device = torch_device
        self.model.to(torch_device)

    def run(
        self,
        *,
        start: Position | None = None,
        restore: Callable[[torch.optim.AdamW], None] | None = None,
        on_step: Callable[[Position, int], None] | None = None,
    ) -> Iterator[EpochResult]:
        """Train, yielding after every epoch; `start` and `restore` continue from a checkpoint."""
        start = start or Position()
        step = start.step
        for index, stage in enumerate(self.config.stages()):
            if index < start.stage:
                continue
            first = start.epoch if index == start.stage else 0
            num_batches = self._num_batches(stage)
            objective, scheduler = self._enter(stage, num_batches, first, restore if first else None)
            self.kept_validation = None
            cached = None
            if stage.encoder_is_frozen:
                cached, self.kept_validation = self.features(self.train), self.features(self.validation)
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
        self.kept_validation = None

    def num_steps(self, start: Position) -> int:
        """Return the step at which the run ends if it continues from `start`."""
        left = self.config.stages()[start.stage :]
        done = start.epoch * self._num_batches(left[0]) if left else 0
        return start.step + sum(stage.epochs * self._num_batches(stage) for stage in left) - done

    def _batch_size(self, stage: Stage) -> int:
        return self.config.batch_size * stage.batch_factor

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
            (
                (parameter, stage.rate_of(name), part_of(name))
                for name, parameter in self.model.named_parameters()
                if parameter.requires_grad
            ),
            weight_decay=self.config.weight_decay,
        )
        if restore is not None:
            restore(self.optimiser)
        scheduler = warm_up_then_decay(
            self.optimiser,
            num_steps=stage.epochs * num_batches,
            warm_up_fraction=self.config.warm_up_fraction,
            rate_left=stage.rate_left,
            first_step=first_epoch * num_batches,
        )
        return self.wrap(Objective(self.model, method(self.config.method), stage)), scheduler

    def _seed(self, stage: Stage, epoch: int) -> None:
        # Each epoch has its own seed: a resumed run makes the same draws as an uninterrupted one.
        generator = torch_generator(self.config.seed, "train", stage.name, epoch, self.rank)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        self.model.train()

    def _batches(self, stage: Stage, epoch: int, cached: Tensor | None) -> Iterator[dict[str, Tensor]]:
        kind, number = self._pass(stage, epoch)
        rng = numpy_generator(self.config.seed, "epoch", kind, number)
        draw = numpy_generator(self.config.seed, "augment", kind, number)
        for samples in self.train.shuffled(rng, self._batch_size(stage), stage.samples_per_category):
            share = self._share(stage, len(samples))
            if cached is not None:
                own = samples[share]
                batch = {"features": cached[torch.from_numpy(own)], **self.train.targets(own)}
            else:
                batch = self.train.batch(samples, draw, share)
            yield {name: tensor.to(self.torch_device) for name, tensor in batch.items()}

    def _pass(self, stage: Stage, epoch: int) -> tuple[str, int]:
        """Return the key of a pass's random draws; all methods share that of the n-th pass over the encoder.

        All methods then see the same samples in the same order, which makes their comparison less noisy.
        """
        if stage.encoder_is_frozen:
            return stage.name, epoch
        stages = self.config.stages()
        before = [each for each in stages[: stages.index(stage)] if not each.encoder_is_frozen]
        return "encoder", sum(each.epochs for each in before) + epoch

    def _share(self, stage: Stage, num_samples: int) -> slice:
        if stage.samples_per_category is None:
            return slice(self.rank, None, self.world_size)
        # Samples of one category are adjacent and must stay together.
        groups = -(-num_samples // stage.samples_per_category)
        bounds = (groups * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(*(bound * stage.samples_per_category for bound in bounds))

    @torch.inference_mode()
    def features(self, source: BatchSource) -> Float[Tensor, "sample *axes 192"]:
        """Return the features of every sample of `source`, each worker computing its share."""
        self.model.eval()
        num_samples = len(source)
        own = np.arange(self.rank, num_samples, self.world_size)
        parts = [
            self.model.task.encode(
                self.model.device, {name: tensor.to(self.torch_device) for name, tensor in batch.items()}
            )
            for batch in source.in_order(own, 4 * self.config.batch_size)
        ]
        features = torch.cat(parts).cpu()
        everything = features.new_zeros(num_samples, *features.shape[1:])
        everything[torch.from_numpy(own)] = features
        self._sum_over_workers(everything)
        # A tensor created in inference mode cannot enter autograd; the clone is made outside of it.
        with torch.inference_mode(False):
            return everything.clone()

    @torch.inference_mode()
    def judge(self, source: BatchSource) -> Tensor:
        """Return what the task's measures need of every sample of `source`; no label is read.

        The anchor of a sample is one of its frames, drawn with the run's seed.
        """
        self.model.eval()
        features = self.kept_validation if source is self.validation else None
        if features is None:
            features = self.features(source)
        # A reasoner may be configured to sample at inference; it makes the same draws each time.
        torch.manual_seed(torch_generator(self.config.seed, "judge").initial_seed())
        frames = self.model.task.frames(features)
        drawn = numpy_generator(self.config.seed, "validation anchor").integers(
            frames.shape[1], size=len(source)
        )
        anchors = frames[torch.arange(len(source)), torch.from_numpy(drawn)]
        judged = []
        for start in range(0, len(source), JUDGED_TOGETHER):
            part = features[start : start + JUDGED_TOGETHER].to(self.torch_device)
            anchor = anchors[start : start + JUDGED_TOGETHER].to(self.torch_device)
            made = outputs(self.model, part, anchor)
            judged.append(self.model.task.judge(self.model.device, part, made).cpu())
        return torch.cat(judged)

    def hits(self, source: BatchSource) -> dict[str, Bool[Tensor, " sample"]]:
        """Return, for each of the task's measures, which samples of `source` are right."""
        return self.model.task.hits(self.judge(source), source.labels(np.arange(len(source))))

    def measures(self, source: BatchSource) -> dict[str, float]:
        """Return the task's measures on `source`, as shares; accuracy, or recall at 1, 5 and 10."""
        return {name: float(right.double().mean()) for name, right in self.hits(source).items()}

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
        # Accuracy cannot change while only the ADR is fitted to label-free targets, so it is not measured.
        if "answer" in losses:
            measured = self.measures(self.validation)
            metrics |= {f"validation_{name}": value for name, value in measured.items()}
            score = sum(measured.values()) / len(measured)
            is_best = is_last_stage and score > self.best_score
            if is_best:
                self.best_score = score
        after = Position(stage=index + 1) if ends_stage else Position(stage=index, epoch=epoch + 1)
        position = Position(stage=after.stage, epoch=after.epoch, step=step)
        return EpochResult(
            stage=stage.name, position=position, metrics=metrics, is_best=is_best, ends_stage=ends_stage
        )


def bundle_config(trainer: Trainer) -> BundleConfig:
    """Return the configuration of a trainer's model, for saving it."""
    config, model = trainer.config, trainer.model
    return BundleConfig(
        task=config.task,
        method=config.method,
        seed=config.seed,
        num_classes=model.device.layout.num_classes,
        encoder=model.device.encoder.config,
        generator=model.generator.config if model.generator is not None else None,
        weights_origin=trainer.weights_origin,
    )
