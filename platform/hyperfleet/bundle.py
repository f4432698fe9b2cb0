"""A trained model on disk: one folder, of which devices and cloud each load their part.

config.json         the trained model: task, method, encoder, generator
model.safetensors   weights, keys `device.*` and `generator.*`
tokenizer.json      the question tokenizer (Hugging Face tokenizers)
answers.json        the answers in label order
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from hyperfleet.errors import CheckpointError
from hyperfleet.methods import TaskModel
from hyperfleet.nn import (
    AnchorReasonerConfig,
    DeviceModel,
    EncoderConfig,
    HeadGenerator,
    HeadGeneratorConfig,
    SequenceReaderConfig,
    TemplateBankConfig,
    head_layout,
)
from hyperfleet.tasks import task

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
TOKENIZER_FILE, ANSWERS_FILE = "tokenizer.json", "answers.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleConfig:
    """Contents of a bundle; enough to build its modules before loading their weights.

    `weights_origin` is the source of the encoder's initial weights.
    """

    task: str
    method: str
    seed: int
    num_classes: int
    encoder: EncoderConfig
    generator: HeadGeneratorConfig | None
    weights_origin: str = "random"

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "BundleConfig":
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: a field is missing, unknown or invalid.
        """
        try:
            fields = json.loads(text)
            encoder = EncoderConfig(**fields.pop("encoder"))
            generator = fields.pop("generator")
            return cls(encoder=encoder, generator=_generator_config(generator), **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{CONFIG_FILE} does not describe a model of this version of HyperFleet: {error}; "
                "train the model again or use the version that wrote it"
            ) from error


def _generator_config(fields: dict[str, Any] | None) -> HeadGeneratorConfig | None:
    if fields is None:
        return None
    adr, templates, sequence = (fields.pop(name) for name in ("adr", "templates", "sequence"))
    return HeadGeneratorConfig(
        adr=None if adr is None else AnchorReasonerConfig(**{**adr, "hidden": tuple(adr["hidden"])}),
        templates=None if templates is None else TemplateBankConfig(**templates),
        sequence=None if sequence is None else SequenceReaderConfig(**sequence),
        **fields,
    )


def _device_model(config: BundleConfig) -> DeviceModel:
    return DeviceModel(config.encoder, config.num_classes, task(config.task).readout)


def build_model(config: BundleConfig) -> TaskModel:
    """Build the untrained model that `config` describes."""
    device = _device_model(config)
    generator = HeadGenerator(config.generator, device.layout) if config.generator is not None else None
    return TaskModel(task(config.task), device, generator)


def load_weights(module: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Load `tensors` into `module`, all of them and no others.

    Raises:
        CheckpointError: names or shapes differ; the message names the first few.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != got:
        missing = sorted(expected.keys() - got.keys())
        extra = sorted(got.keys() - expected.keys())
        other = [
            f"{name} {got[name]} instead of {expected[name]}"
            for name in sorted(expected.keys() & got.keys())
            if expected[name] != got[name]
        ]
        raise CheckpointError(
            f"{origin} holds the weights of another model: missing {missing[:3]}, unexpected {extra[:3]}, "
            f"of another shape {other[:3]}; use the {CONFIG_FILE} that was written beside it"
        )
    module.load_state_dict(tensors)


def save_bundle(
    folder: Path, config: BundleConfig, model: TaskModel, *, tokenizer_file: Path, answers_file: Path | None
) -> Path:
    """Write a bundle into `folder` and return it; tasks without answers get no answers file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.generator is not None and model.generator.config.static_base:
        # Training adds the device's own head; the service, which has no device model, adds this copy.
        tensors["generator.base"] = model.device.flat_head().detach().cpu()
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)
    shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
    if answers_file is not None:
        shutil.copyfile(answers_file, folder / ANSWERS_FILE)
    # Written last: a folder with a configuration is a complete bundle.
    (folder / CONFIG_FILE).write_text(config.to_json())
    return folder


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Replace `folder` by one that `write` fills: completely, or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_config(folder: Path) -> BundleConfig:
    """Read the configuration of the bundle in `folder`.

    Raises:
        CheckpointError: `folder` holds no bundle.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"no model in {folder}: {CONFIG_FILE} is missing; `hyperfleet train` writes one"
        )
    return BundleConfig.from_json(path.read_text())


def _part(folder: Path, part: str) -> dict[str, Tensor]:
    path = Path(folder) / WEIGHTS_FILE
    prefix = part + "."
    try:
        with safetensors.safe_open(path, framework="pt") as weights:
            return {
                name.removeprefix(prefix): weights.get_tensor(name)
                for name in weights.keys()  # noqa: SIM118 - a safetensors handle, no mapping
                if name.startswith(prefix)
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: {error}; train the model again"
        ) from error


def load_device_model(folder: Path) -> DeviceModel:
    """Load the device's part, ready for inference.

    Raises:
        CheckpointError: no bundle there, or the weights of another model.
    """
    config = read_config(folder)
    device = _device_model(config)
    load_weights(device, _part(folder, "device"), Path(folder) / WEIGHTS_FILE)
    return device.eval().requires_grad_(False)


def load_generator(folder: Path) -> HeadGenerator:
    """Load the generator that the cloud serves, ready for inference.

    Raises:
        CheckpointError: no bundle there, a method that generates nothing, or another model's weights.
    """
    config = read_config(folder)
    if config.generator is None:
        raise CheckpointError(
            f"{folder} holds a model of method {config.method!r}, which has a static head and no generator; "
            "serve a model trained with a method that personalizes, e.g. cdc_mmpg"
        )
    if config.generator.sequence is not None:
        raise CheckpointError(
            f"{folder} holds a model of method {config.method!r}, whose generator reads "
            f"{config.generator.sequence.num_frames} features per head; the service takes only one"
        )
    if config.generator.upload != "anchor":
        raise CheckpointError(
            f"{folder} holds a model of method {config.method!r}, whose generator takes the mean of all "
            "frames' features; devices send that of one frame, so serve a model of another method"
        )
    layout = head_layout(config.num_classes, task(config.task).readout)
    generator = HeadGenerator(config.generator, layout)
    load_weights(generator, _part(folder, "generator"), Path(folder) / WEIGHTS_FILE)
    return generator.eval().requires_grad_(False)


def load_model(folder: Path) -> tuple[BundleConfig, TaskModel]:
    """Load the whole model, e.g. to continue training.

    Raises:
        CheckpointError: no bundle there, or the weights of another model.
    """
    config = read_config(folder)
    model = build_model(config)
    tensors = {f"{part}.{k}": v for part in ("device", "generator") for k, v in _part(folder, part).items()}
    load_weights(model, tensors, Path(folder) / WEIGHTS_FILE)
    return config, model
