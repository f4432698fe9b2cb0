"""A training run on disk: the model's bundle, the optimizer's state and the run's progress."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch.optim import AdamW

from hyperfleet.bundle import load_model, save_bundle
from hyperfleet.cloud.optimisation import optimiser_tensors, parameter_names, restore_optimiser
from hyperfleet.cloud.train_config import TRAINING_REVISION
from hyperfleet.cloud.training import Position, Trainer, bundle_config
from hyperfleet.errors import CheckpointError
from hyperfleet.methods.stage import WARM

OPTIMISER_FILE, PROGRESS_FILE = "optimiser.safetensors", "progress.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleFiles:
    """Files that every bundle of a data set copies: the tokenizer and, if it has any, the answers."""

    tokenizer: Path
    answers: Path | None


def save_trained(folder: Path, trainer: Trainer, files: BundleFiles) -> Path:
    """Write the trainer's model as a bundle."""
    config = bundle_config(trainer)
    return save_bundle(
        folder, config, trainer.model, tokenizer_file=files.tokenizer, answers_file=files.answers
    )


def save_checkpoint(folder: Path, trainer: Trainer, position: Position, files: BundleFiles) -> Path:
    """Write everything that `resume` needs to continue as if the run had not been interrupted."""
    assert trainer.optimiser is not None
    save_trained(folder, trainer, files)
    names = parameter_names(trainer.model, trainer.optimiser)
    safetensors.torch.save_file(optimiser_tensors(trainer.optimiser, names), folder / OPTIMISER_FILE)
    progress = {
        "position": dataclasses.asdict(position),
        "best_score": trainer.best_score,
        "train": _settings(trainer),
    }
    (folder / PROGRESS_FILE).write_text(json.dumps(progress, indent=2) + "\n")
    return folder


def resume(folder: Path, trainer: Trainer) -> tuple[Position, Callable[[AdamW], None]]:
    """Load the checkpoint's weights; return the start position and a function that restores the optimizer.

    Raises:
        CheckpointError: there is no checkpoint, it belongs to another configuration, or it is incomplete.
    """
    path = folder / PROGRESS_FILE
    if not path.is_file():
        raise CheckpointError(f"no checkpoint in {folder}: {PROGRESS_FILE} is missing; start a new run")
    progress = json.loads(path.read_text())
    expected = json.loads(json.dumps(_settings(trainer)))
    if progress["train"] != expected:
        changed = sorted(k for k in expected if progress["train"].get(k) != expected[k])
        raise CheckpointError(
            f"{folder} was written by a run with other settings of {changed}: "
            f"{[progress['train'].get(k) for k in changed]}, expected {[expected[k] for k in changed]}; "
            "give the new run another output folder"
        )
    _, model = load_model(folder)
    trainer.model.load_state_dict(model.state_dict())
    trainer.best_score = progress["best_score"]
    tensors = safetensors.torch.load_file(folder / OPTIMISER_FILE)

    def restore(optimiser: AdamW) -> None:
        restore_optimiser(optimiser, parameter_names(trainer.model, optimiser), tensors)

    return Position(**progress["position"]), restore


def _settings(trainer: Trainer) -> dict[str, object]:
    return {**dataclasses.asdict(trainer.config), "revision": TRAINING_REVISION}


def warm_start(folder: Path, trainer: Trainer) -> Position:
    """Start from a model whose first stage was trained elsewhere with the same settings.

    Returns:
        The position after the first stage.

    Raises:
        CheckpointError: the bundle in `folder` has another encoder or other answers.
    """
    config, model = load_model(folder)
    device = trainer.model.device
    theirs = config.task, config.encoder, config.num_classes
    ours = trainer.config.task, device.encoder.config, device.layout.num_classes
    if theirs != ours:
        raise CheckpointError(
            f"{folder} holds a model of task {config.task!r}, encoder {config.encoder.name!r} of "
            f"{config.encoder.num_frames} frames and {config.num_classes} outputs, this run has "
            f"{trainer.config.task!r}, {device.encoder.config.name!r} of {device.encoder.config.num_frames} "
            f"and {device.layout.num_classes}; warm-start from a model of the same task, encoder and data set"
        )
    with torch.no_grad():
        device.load_state_dict(model.device.state_dict())
    names = [stage.name for stage in trainer.config.stages()]
    return Position(stage=1 if names[0] == WARM else 0)
