"""Interface of a method: a model, the stages that train it, and the loss of each stage."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hyperfleet.errors import ConfigError
from hyperfleet.methods.stage import WARM, Stage
from hyperfleet.nn import DeviceModel, HeadGenerator, HeadGeneratorConfig
from hyperfleet.tasks import Task

# The stage that methods with a generator end with.
ADAPT = "adapt"

# All parts that the device computes with; `itm_score` is kept for checkpoints and never applied.
HEAD_PARTS = ("device.trunk", "device.head", "device.text_projection")
DEVICE_PARTS = ("device.encoder", "device.pooler", *HEAD_PARTS)
# Between 1/sqrt(192) and 1/192, see `Stage.generator_rate`: docs/decisions/0006.
GENERATOR_RATE = 0.04
# Passes over stored features cost so little that methods with a frozen encoder make more of them.
FROZEN_PASSES = 4


class TaskModel(nn.Module):
    """The device model and, for methods that personalize, the head generator in the cloud."""

    def __init__(self, task: Task, device: DeviceModel, generator: HeadGenerator | None) -> None:
        super().__init__()
        self.task = task
        self.device = device
        self.generator = generator


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples:
    """Inputs of a stage's loss for one batch.

    Attributes:
        features: as the task encodes them.
        labels: targets of the task's loss.
        categories: categories of StableSynthNet's templates; -1 for none.
    """

    features: Float[Tensor, "sample *axes 192"]
    labels: Int[Tensor, " sample"]
    categories: Int[Tensor, " sample"]


@runtime_checkable
class Method(Protocol):
    """A way to train a model; stateless, so that one instance serves every run."""

    @property
    def name(self) -> str:
        """Name in tables, files and on the command line."""
        ...

    @property
    def generator_config(self) -> HeadGeneratorConfig | None:
        """Configuration of the generator, before a data set sets its sizes; None for a static head."""
        ...

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Return the stages in order: `warm_epochs` shared by all methods, then `epochs` of its own."""
        ...

    def losses(self, model: TaskModel, stage: str, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted terms of the stage's loss."""
        ...


def personalizes(method: Method) -> bool:
    """Return whether the method generates heads."""
    return method.generator_config is not None


def parts_beside(generator: HeadGeneratorConfig) -> tuple[str, ...]:
    """Return the device parts that train beside a generator: all, except a head that it replaces."""
    return tuple(part for part in DEVICE_PARTS if generator.static_base or part != "device.head")


def own_rate(warm_epochs: int, epochs: int, learning_rate: float) -> float:
    """Return the learning rate at which a method's own passes begin, after the shared ones.

    Both follow one continuous schedule: a rate that falls to zero and rises again costs ten points of
    accuracy (docs/decisions/0008).
    """
    return learning_rate * epochs / (warm_epochs + epochs)


def warm_stage(warm_epochs: int, epochs: int, learning_rate: float) -> Stage:
    """Return the stage shared by methods: the static model's training on the history of all devices."""
    return Stage(
        name=WARM,
        trains=DEVICE_PARTS,
        epochs=warm_epochs,
        learning_rate=learning_rate,
        rate_left=own_rate(warm_epochs, epochs, 1.0),
    )


def adapt_stage(
    generator: HeadGeneratorConfig,
    epochs: int,
    learning_rate: float,
    *,
    generator_rate: float = GENERATOR_RATE,
    generator_parts: tuple[str, ...] = ("generator",),
) -> Stage:
    """Return the stage that trains the generator beside the device model."""
    return Stage(
        name=ADAPT,
        trains=(*parts_beside(generator), *generator_parts),
        epochs=epochs,
        learning_rate=learning_rate,
        generator_rate=generator_rate,
    )


def generator_of(model: TaskModel) -> HeadGenerator:
    """Return the model's generator.

    Raises:
        ConfigError: the model was built without one.
    """
    if model.generator is None:
        raise ConfigError("this method needs a model with a head generator, got one without; build it again")
    return model.generator


def static_outputs(
    model: TaskModel, features: Float[Tensor, "sample *axes 192"]
) -> Float[Tensor, "sample item output"]:
    """Apply the static head."""
    outputs: Tensor = model.device.head(model.task.hidden(model.device, features))
    return outputs


def static_loss(model: TaskModel, examples: Examples) -> Float[Tensor, ""]:
    """Return the task's loss of the static head."""
    outputs = static_outputs(model, examples.features)
    return model.task.loss(model.device, examples.features, outputs, examples.labels)


def random_anchor(frames: Float[Tensor, "sample frame 192"]) -> Float[Tensor, "sample 192"]:
    """Pick one frame of each sample at random, as in training (CDC-MMPG, section 3.3)."""
    num_samples, num_frames = frames.shape[:2]
    frame = torch.randint(num_frames, (num_samples,), device=frames.device)
    return frames[torch.arange(num_samples, device=frames.device), frame]


def upload(
    generator: HeadGenerator, frames: Float[Tensor, "sample frame 192"], anchor: Float[Tensor, "sample 192"]
) -> Float[Tensor, "sample *frame 192"]:
    """Return what the generator gets to see: the anchor, F_g, or all frames where it reads sequences."""
    if not generator.uploads_one_feature:
        return frames
    return frames.mean(dim=1) if generator.config.upload == "clip" else anchor


def generated_outputs(
    model: TaskModel,
    features: Float[Tensor, "sample *axes 192"],
    anchor: Float[Tensor, "sample 192"],
    *,
    device_learns: bool = True,
) -> Float[Tensor, "sample item output"]:
    """Generate a head from each upload and apply it (equations 6, 7 and 11).

    Without `device_learns` no gradient reaches the trunk and the static head below the generated one.
    """
    generator = generator_of(model)
    hidden = model.task.hidden(model.device, features)
    head = model.device.head
    seen = upload(generator, model.task.frames(features), anchor)
    if device_learns:
        return generator.outputs(seen, hidden, head)

    def frozen_head(hidden: Tensor) -> Tensor:
        return functional.linear(hidden, head.weight.detach(), head.bias.detach())

    return generator.outputs(seen, hidden.detach(), frozen_head)


def adaptation_losses(model: TaskModel, examples: Examples, *, joint: bool) -> dict[str, Float[Tensor, ""]]:
    """Return the task's loss of heads generated from a random frame, and of the static head they start from.

    A device falls back to the static head, so it is trained too if heads have a static base. Unless `joint`,
    the loss of the generated heads trains the generator alone; encoder, trunk and static head learn from the
    static head's loss, as in Fine-tuning: docs/decisions/0008. (In retrieval the generated heads' loss also
    trains the text's projection, with which they are compared.)
    """
    if not generator_of(model).config.static_base:
        anchor = random_anchor(model.task.frames(examples.features))
        outputs = generated_outputs(model, examples.features, anchor)
        return {"answer": model.task.loss(model.device, examples.features, outputs, examples.labels)}
    features = examples.features if joint else examples.features.detach()
    anchor = random_anchor(model.task.frames(features))
    outputs = generated_outputs(model, features, anchor, device_learns=joint)
    generated = model.task.loss(model.device, features, outputs, examples.labels)
    return {"answer": generated, "static": static_loss(model, examples)}


def outputs(
    model: TaskModel, features: Float[Tensor, "sample *axes 192"], anchor: Float[Tensor, "sample 192"]
) -> Float[Tensor, "sample item output"]:
    """Apply the head that the model uses at inference: generated if there is a generator."""
    if model.generator is None:
        return static_outputs(model, features)
    return generated_outputs(model, features, anchor)
