"""Function of each Ray Train worker; rank 0 writes checkpoints and reports metrics to the driver."""

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model
from safetensors import SafetensorError

from actors.meters import TrainMeter
from actors.node_folder import NodeFolder
from actors.progress_board import TrainProgress
from hyperfleet.bundle import replace_folder
from hyperfleet.cloud.assembly import assemble
from hyperfleet.cloud.checkpoint import BundleFiles, resume, save_checkpoint, save_trained, warm_start
from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.cloud.training import EpochResult, Position, Trainer
from hyperfleet.errors import CheckpointError
from hyperfleet.methods.stage import WARM

BEST = "best"
# Bundles that a run produces: part of every checkpoint, since no other folder of a worker reaches the driver,
# and a resumed run needs them.
KEPT = "kept"
# Metrics of all epochs so far: a driver may die between the checkpoint of an epoch and its record.
HISTORY_FILE = "metrics.json"
PROGRESS_INTERVAL_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSpec:
    """Task of every worker.

    Attributes:
        train: method, encoder, seed and schedule.
        data: the data set.
        warm_start: a bundle whose device model replaces the first stage.
        use_gpu: whether the worker has a GPU.
        board: handle of the driver's `ProgressBoard`.
        run_id: name of the run in metrics and logs.
    """

    train: TrainConfig
    data: NodeFolder
    warm_start: NodeFolder | None
    use_gpu: bool
    board: Any
    run_id: str


def keep_bundles(kept: Path, trainer: Trainer, files: BundleFiles, result: EpochResult) -> None:
    """Write the best model so far, and the model that ends the first stage, into the folder `kept`."""
    if result.is_best:
        replace_folder(kept / BEST, lambda folder: save_trained(folder, trainer, files))
    if result.ends_stage and result.stage == WARM:
        replace_folder(kept / WARM, lambda folder: save_trained(folder, trainer, files))


def train_worker(loop: dict[str, WorkerSpec]) -> None:
    """Train from the last checkpoint, the warm start or scratch, and report after each epoch."""
    spec = loop["spec"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if not spec.use_gpu:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    assembled = assemble(spec.train, spec.data.path(), rank=rank, world_size=world_size)
    trainer, files = assembled.trainer, assembled.files
    with contextlib.ExitStack() as stack:
        with writing():
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hyperfleet-kept-"))
            kept = Path(scratch) / KEPT
            kept.mkdir()
        start, restore, history = _start(spec, trainer, kept)
        device: torch.device = get_device()
        trainer.to(device)
        trainer.wrap = prepare_model
        reporter = _Reporter(spec, trainer.num_steps(start)) if rank == 0 else None
        if reporter is not None:
            spec.board.post_params.remote({"weights_origin": trainer.weights_origin})
            for step, metrics in history.items():
                spec.board.post_metrics.remote(int(step), metrics)
            _log.info(
                "training starts", extra={"run_id": spec.run_id, "step": start.step, "workers": world_size}
            )
        for result in trainer.run(start=start, restore=restore, on_step=reporter):
            best = {"best_validation_score": trainer.best_score} if trainer.best_score >= 0 else {}
            with writing(), tempfile.TemporaryDirectory(prefix="hyperfleet-checkpoint-") as folder:
                saved = None
                if rank == 0:
                    keep_bundles(kept, trainer, files, result)
                    save_checkpoint(Path(folder), trainer, result.position, files)
                    shutil.copytree(kept, Path(folder) / KEPT, copy_function=os.link)
                    saved = Checkpoint.from_directory(folder)
                    named = {f"{result.stage}/{name}": value for name, value in result.metrics.items()}
                    history[str(result.position.step)] = {**named, **best}
                    (Path(folder) / HISTORY_FILE).write_text(json.dumps(history))
                    # Before the checkpoint: an epoch that is lost with its worker is reported again and
                    # counted once.
                    spec.board.post_metrics.remote(result.position.step, {**named, **best})
                    assert reporter is not None
                    reporter.epoch(result)
                ray.train.report({**result.metrics, **best}, checkpoint=saved)


@contextlib.contextmanager
def writing(what: str = "a checkpoint") -> Iterator[None]:
    """Convert failures to write a file into one error with a remedy.

    Raises:
        CheckpointError: `what` cannot be written on this node, or into the storage.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise CheckpointError(
            f"{what} cannot be written on node {socket.gethostname()}: {error}; make room there and in "
            "the storage; the same command goes on from the last checkpoint"
        ) from error


def _start(spec: WorkerSpec, trainer: Trainer, kept: Path) -> tuple[Position, Any, dict[str, Any]]:
    """Return the start, a function that restores the optimiser, and the metrics of earlier epochs by step."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with contextlib.ExitStack() as stack:
            with writing():  # an object store is copied to a folder
                folder = Path(stack.enter_context(checkpoint.as_directory()))
                if (folder / KEPT).exists():
                    shutil.copytree(folder / KEPT, kept, dirs_exist_ok=True)
            history = folder / HISTORY_FILE
            return *resume(folder, trainer), json.loads(history.read_text()) if history.exists() else {}
    if spec.warm_start is not None:
        return warm_start(spec.warm_start.path(), trainer), None, {}
    return Position(), None, {}


class _Reporter:
    """Reports the progress of the training to the driver, no more often than it is shown."""

    def __init__(self, spec: WorkerSpec, num_steps: int) -> None:
        self._spec = spec
        self._num_steps = num_steps
        self._next_s = 0.0
        self._meter = TrainMeter(spec.run_id)

    def __call__(self, position: Position, _: int) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PROGRESS_INTERVAL_S
        stage = self._spec.train.stages()[position.stage].name
        note = f"stage {stage}, epoch {position.epoch + 1}"
        self._spec.board.post.remote(TrainProgress(step=position.step, num_steps=self._num_steps, note=note))
        self._meter.at(position.step)

    def epoch(self, result: EpochResult) -> None:
        """Report the metrics of an epoch."""
        step = result.position.step
        self._meter.at(step)
        self._meter.measured(result.stage, result.metrics)
        of = {"run_id": self._spec.run_id, "stage": result.stage, "step": step}
        _log.info("epoch done: %s", result.metrics, extra=of)
