"""One cell: one method trained with one seed on one data set and scored on its live samples."""

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from hyperfleet.bundle import replace_folder
from hyperfleet.cloud.assembly import Assembled, assemble
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.checkpoint import save_trained, warm_start
from hyperfleet.cloud.train_config import TRAINING_REVISION, TrainConfig
from hyperfleet.cloud.training import Position, Trainer
from hyperfleet.errors import CheckpointError
from hyperfleet.methods.base import outputs
from hyperfleet.methods.stage import WARM
from hyperfleet.papers.experiments.cost import Cost, cost_of
from hyperfleet.tasks import OPEN_ENDED_QA
from hyperfleet.tracking.base import Tracker

CPU = torch.device("cpu")
WARM_FILE = "warm.json"
RESULT_FILE, HITS_FILE, MODEL_DIR = "result.json", "hits.safetensors", "model"
# Samples for the spread of the logits and the loss before the first step; a guess has loss ln(C).
START_SAMPLES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSpec:
    """Identity of a cell: training run, name and digest of the data set, and revision of the methods."""

    dataset: str
    train: TrainConfig
    data_digest: str = ""
    revision: int = TRAINING_REVISION

    @property
    def num_frames(self) -> int | None:
        """Return the frames per clip; None for the method's default."""
        return self.train.num_frames

    @property
    def key(self) -> str:
        """Return the name of the cell's folder."""
        frames = f"-{self.num_frames}frames" if self.num_frames else ""
        return f"{self.dataset}/{self.train.task}/{self.train.method}{frames}/seed-{self.train.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """Result of a cell.

    Attributes:
        measures: the task's measures on the live samples, as shares.
        in_vocabulary: accuracy without samples whose answer is outside the vocabulary, All-in-One's count;
            None for other tasks.
        cost: cost of a head of this model.
        epoch_s: mean seconds per pass that trains the encoder; None if no pass does.
        train_s: seconds of the full training without the warm stage.
        start_logit_std: standard deviation of the scores before the method's own training.
        start_loss: the task's loss at that point.
        run_id: MLflow run.
        weights_origin: origin of the encoder's first weights.
    """

    spec: CellSpec
    measures: dict[str, float]
    in_vocabulary: float | None
    num_samples: int
    cost: Cost
    epoch_s: float | None
    train_s: float
    start_logit_std: float
    start_loss: float
    run_id: str
    weights_origin: str

    def to_json(self) -> str:
        """Return the result as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CellResult":
        """Parse the output of `to_json`.

        Raises:
            CheckpointError: the text is no result of this version.
        """
        try:
            fields = json.loads(text)
            spec = fields.pop("spec")
            return cls(
                spec=CellSpec(**{"revision": 1, **spec, "train": TrainConfig(**spec["train"])}),
                cost=Cost(**fields.pop("cost")),
                **fields,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"a {RESULT_FILE} was not written by this version of HyperFleet: {error}; delete the cell's "
                "folder to run it again"
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellHits:
    """Samples that a cell got right: one boolean array per measure, in the order of `example_id`."""

    example_id: np.ndarray
    device_id: np.ndarray
    right: dict[str, np.ndarray]


def finished(folder: Path, spec: CellSpec) -> CellResult | None:
    """Return the cell's result if it is finished, else None.

    Raises:
        CheckpointError: the folder holds a cell with other settings.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    result = CellResult.from_json(path.read_text())
    _check_same(folder, _settings(result.spec), spec)
    return result


def _settings(spec: CellSpec) -> dict[str, Any]:
    return {**dataclasses.asdict(spec.train), "data": spec.data_digest, "revision": spec.revision}


def _check_same(folder: Path, before: dict[str, Any], spec: CellSpec) -> None:
    now = _settings(spec)
    changed = sorted(name for name in now if before.get(name) != now[name])
    if changed:
        raise CheckpointError(
            f"{folder} was trained with other {', '.join(changed)} "
            f"({[before.get(name) for name in changed]}, "
            f"now {[now[name] for name in changed]}); choose another output folder, or delete that one"
        )


def read_hits(folder: Path) -> CellHits:
    """Read the hits of a finished cell."""
    arrays = safetensors.numpy.load_file(folder / HITS_FILE)
    example_id, device_id = arrays.pop("example_id"), arrays.pop("device_id")
    return CellHits(example_id=example_id, device_id=device_id, right=arrays)


def read_cells(folder: Path) -> tuple[CellResult, ...]:
    """Read every finished cell below `folder`, in the order of the names."""
    paths = sorted(Path(folder).rglob(RESULT_FILE))
    return tuple(CellResult.from_json(path.read_text()) for path in paths)


def train_warm(spec: CellSpec, data: Path, folder: Path, *, torch_device: torch.device = CPU) -> Path:
    """Train the stage that methods share and return its bundle; an existing one is kept.

    Raises:
        CheckpointError: the folder holds a model with other settings.
    """
    if (folder / WARM_FILE).is_file():
        _check_same(folder, json.loads((folder / WARM_FILE).read_text()), spec)
        return folder
    assembled = assemble(spec.train, data)
    assembled.trainer.to(torch_device)
    for result in assembled.trainer.run():
        if result.stage == WARM and result.ends_stage:
            break

    def write(partial: Path) -> None:
        save_trained(partial, assembled.trainer, assembled.files)
        (partial / WARM_FILE).write_text(json.dumps(_settings(spec), indent=2) + "\n")

    replace_folder(folder, write)
    return folder


def run_cell(
    spec: CellSpec,
    data: Path,
    folder: Path,
    *,
    warm: Path | None,
    tracker: Tracker,
    torch_device: torch.device = CPU,
) -> CellResult:
    """Train and score one cell and write its result; `warm` is its bundle from `train_warm`.

    The model with the best validation score answers the live samples, once.
    """
    assembled = assemble(spec.train, data)
    trainer = assembled.trainer
    trainer.to(torch_device)
    start = warm_start(warm, trainer) if warm is not None else Position()
    origin = trainer.weights_origin
    parameters = {**dataclasses.asdict(spec.train), "dataset": spec.dataset, "data": data}
    tracker.log_params({**parameters, "warm_start": warm, "weights_origin": origin})
    logit_std, loss = measure_start(trainer)
    epoch_s, train_s = _train(assembled, start, folder, tracker)
    live = assembled.source("test")
    right = {name: hit.numpy() for name, hit in trainer.hits(live).items()}
    cost = cost_of(trainer.model.to(CPU))
    result = CellResult(
        spec=spec,
        measures={name: float(hit.mean()) for name, hit in right.items()},
        in_vocabulary=_in_vocabulary(spec, live, right),
        num_samples=len(live),
        cost=cost,
        epoch_s=epoch_s,
        train_s=train_s,
        start_logit_std=logit_std,
        start_loss=loss,
        run_id=tracker.run_id,
        weights_origin=origin,
    )
    tracker.log_metrics({f"test/{name}": value for name, value in _loggable(result).items()}, step=0)
    ids = {"example_id": live.split.example_id, "device_id": live.split.device_id}
    safetensors.numpy.save_file({**ids, **right}, folder / HITS_FILE)
    # Written last: a folder with a result is a finished cell.
    partial = folder / (RESULT_FILE + ".partial")
    partial.write_text(result.to_json())
    partial.rename(folder / RESULT_FILE)
    return result


def _loggable(result: CellResult) -> dict[str, float]:
    # MLflow allows no "@" in names.
    values = {name.replace("@", "_at_"): value for name, value in result.measures.items()}
    cost = {name: float(value) for name, value in dataclasses.asdict(result.cost).items()}
    start = {"start_logit_std": result.start_logit_std, "start_loss": result.start_loss}
    return {**values, **cost, **start, "train_s": result.train_s}


def _in_vocabulary(spec: CellSpec, live: BatchSource, right: dict[str, np.ndarray]) -> float | None:
    if spec.train.task != OPEN_ENDED_QA:
        return None
    known = live.split.label >= 0
    return float(right["accuracy"][known].mean()) if known.any() else math.nan


@torch.no_grad()
def measure_start(trainer: Trainer) -> tuple[float, float]:
    """Return the standard deviation of the scores and the loss before training.

    Uses up to 256 training samples with a label; the anchor is the first frame.
    """
    model = trainer.model.eval()
    samples = np.flatnonzero(trainer.train.split.label >= 0)[:START_SAMPLES]
    if len(samples) == 0:
        return math.nan, math.nan
    (batch,) = trainer.train.in_order(samples, START_SAMPLES)
    batch = {name: tensor.to(trainer.torch_device) for name, tensor in batch.items()}
    features = model.task.encode(model.device, batch)
    made = outputs(model, features, model.task.frames(features)[:, 0])
    loss = model.task.loss(model.device, features, made, batch["labels"])
    return float(made.std()), float(loss)


def _train(
    assembled: Assembled, start: Position, folder: Path, tracker: Tracker
) -> tuple[float | None, float]:
    """Run all stages and load the best weights; return seconds per encoder pass and in total."""
    trainer = assembled.trainer
    started = before = time.perf_counter()
    stages = {stage.name: stage for stage in trainer.config.stages()}
    passes: list[float] = []
    best: dict[str, torch.Tensor] = {}
    for result in trainer.run(start=start):
        now = time.perf_counter()
        if not stages[result.stage].encoder_is_frozen:
            passes.append(now - before)
        before = now
        named = {f"{result.stage}/{k}".replace("@", "_at_"): v for k, v in result.metrics.items()}
        tracker.log_metrics(named, step=result.position.step)
        if result.is_best:
            best = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(best)
    replace_folder(folder / MODEL_DIR, lambda partial: save_trained(partial, trainer, assembled.files))
    epoch_s = sum(passes) / len(passes) if passes else None
    return epoch_s, time.perf_counter() - started
