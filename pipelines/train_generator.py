"""Train one method with Ray Train, record it in MLflow and register its model."""

import contextlib
import dataclasses
import json
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from mlflow.exceptions import MlflowException
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer

from actors.placement import num_available, placed, resources_line
from actors.progress_board import TrainProgress, start_progress_board
from hyperfleet.bundle import ANSWERS_FILE, TOKENIZER_FILE, read_config, replace_folder
from hyperfleet.datasets import Corpus
from hyperfleet.errors import CheckpointError, ConfigError, HyperFleetError, ServiceError
from hyperfleet.methods import method, personalizes
from hyperfleet.methods.stage import WARM
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri, prepare_store
from hyperfleet.tracking.mlflow_store import connect as connect_store
from hyperfleet.tracking.mlflow_tracker import MlflowTracker, open_run, run_exists
from hyperfleet.tracking.model_names import GENERATOR_NAME, STATIC_NAME
from hyperfleet.tracking.registry import bundle_digest, register_bundle
from pipelines.commands.models import TrainRunConfig
from pipelines.progress import progress_bar
from pipelines.runtime import connect, is_joined
from pipelines.storage import checkpoints_of, for_all_nodes
from pipelines.training_record import TrainingRecord
from pipelines.training_worker import BEST, KEPT, PROGRESS_INTERVAL_S, WorkerSpec, train_worker, writing

SETTINGS_FILE = "settings.json"
# Longer than a cloud needs to start a node, or a worker to validate the largest data set.
PATIENCE_S = 1800.0
# Interval of Ray Train's controller, for which `report` waits.
HEALTH_CHECK_INTERVAL_S = "0.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Result of a run; `warm` is the model after the first stage, None if it was given."""

    run_id: str
    bundle: Path
    warm: Path | None
    model_version: str
    metrics: dict[str, float]
    wall_s: float


def check_shares(config: TrainRunConfig) -> None:
    """Check that workers get equally many samples of a batch, also where those of a category stay together.

    Raises:
        ConfigError: a stage cannot be divided.
    """
    for stage in config.train.stages():
        for num_workers in range(config.min_workers or config.num_workers, config.num_workers + 1):
            least = num_workers * (stage.samples_per_category or 1)
            if config.train.batch_size % least:
                raise ConfigError(
                    f"stage {stage.name!r} of {config.train.method} cannot divide batches of "
                    f"{config.train.batch_size} among {num_workers} workers; choose a multiple of {least}"
                )


def train(config: TrainRunConfig) -> TrainResult:
    """Run the training and register its model.

    Raises:
        HyperFleetError: data, warm start, tracking store or configuration cannot be used; raised
            before any worker starts.
    """
    started = time.perf_counter()
    check_shares(config)
    corpus = Corpus.open(config.data)
    if config.warm_start is not None:
        _check_warm_start(config.warm_start, corpus)
    uri = absolute_uri(config.tracking_uri) if config.tracking_uri else default_tracking_uri()
    config = dataclasses.replace(
        config,
        data=config.data.absolute(),
        output=config.output.absolute(),
        warm_start=config.warm_start.absolute() if config.warm_start else None,
        tracking_uri=uri,
    )
    _claim_output(config, corpus)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_INTERVAL_S)
    connect()
    _check_resources(config)
    tracker = _open_or_continue(config, prepare_store(uri), uri)
    try:
        metrics = _fit(config, tracker)
        bundle = config.output / BEST
        name = GENERATOR_NAME if personalizes(method(config.train.method)) else STATIC_NAME
        version = register_bundle(bundle, tracker.run_id, tracking_uri=uri, name=name)
    except BaseException:
        _close_as_failed(tracker)
        raise
    tracker.finish()
    warm = config.output / WARM
    return TrainResult(
        run_id=tracker.run_id,
        bundle=bundle,
        warm=warm if warm.exists() else config.warm_start,
        model_version=version,
        metrics=metrics,
        wall_s=time.perf_counter() - started,
    )


def _close_as_failed(tracker: MlflowTracker) -> None:
    # A store that does not answer must neither hide the failure nor delay it by minutes.
    with contextlib.suppress(ServiceError, MlflowException):
        connect_store(tracker.tracking_uri)
        tracker.finish("FAILED")


def _check_warm_start(folder: Path, corpus: Corpus) -> None:
    read_config(folder)
    for name, file in ((TOKENIZER_FILE, corpus.tokenizer_file), (ANSWERS_FILE, corpus.answers_file)):
        if file.exists() and (folder / name).read_bytes() != file.read_bytes():
            raise CheckpointError(
                f"{folder} was trained on another data set than {corpus.root}: {name} differs from "
                f"{file.name}; warm-start from a model of the same data set"
            )


def _claim_output(config: TrainRunConfig, corpus: Corpus) -> None:
    """Claim the output folder for this run, or check that it belongs to it: such a run is resumed.

    Raises:
        CheckpointError: the folder belongs to a run with other settings or other data.
    """
    settings = {
        **dataclasses.asdict(config.train),
        "data": corpus.digest(),
        "warm_start": bundle_digest(config.warm_start) if config.warm_start else None,
    }
    path = config.output / SETTINGS_FILE
    if path.exists():
        before = json.loads(path.read_text())
        changed = sorted(name for name in settings if before.get(name) != settings[name])
        if changed:
            raise CheckpointError(
                f"{config.output} belongs to a run with other {', '.join(changed)} "
                f"({[before.get(name) for name in changed]}, now {[settings[name] for name in changed]}); "
                "name another --output, or delete the folder"
            )
    config.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _check_resources(config: TrainRunConfig) -> None:
    # Ray Train would wait for missing workers forever. A cluster may start nodes for them, so there only
    # `PATIENCE_S` limits the wait.
    if is_joined():
        return
    kind = "GPU" if config.use_gpu else "CPU"
    available, needed = num_available(kind), config.min_workers or config.num_workers
    if available < needed:
        raise ConfigError(
            f"{needed} training workers need one {kind} each, this machine has {available}; "
            "lower --num-workers" + (" or leave out --use-gpu" if config.use_gpu else "")
        )


def _open_or_continue(config: TrainRunConfig, experiment: str, uri: str) -> MlflowTracker:
    # An interrupted run continues in the same MLflow run: its id is beside its checkpoints.
    marker = config.output / "run_id"
    if marker.exists() and run_exists(marker.read_text().strip(), uri):
        return MlflowTracker(run_id=marker.read_text().strip(), tracking_uri=uri)
    tracker = open_run(experiment, tracking_uri=uri, run_name=f"{config.train.method}-{config.train.seed}")
    parameters = {**dataclasses.asdict(config), **dataclasses.asdict(config.train)}
    del parameters["train"]
    tracker.log_params(parameters)
    marker.write_text(tracker.run_id + "\n")
    return tracker


def _fit(config: TrainRunConfig, tracker: MlflowTracker) -> dict[str, float]:
    board = start_progress_board()
    record = TrainingRecord(board, tracker)
    spec = WorkerSpec(
        train=config.train,
        data=for_all_nodes(config.data),
        warm_start=for_all_nodes(config.warm_start) if config.warm_start else None,
        use_gpu=config.use_gpu,
        board=board,
        run_id=tracker.run_id,
    )
    fewest, most = config.min_workers or config.num_workers, config.num_workers
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec},
        scaling_config=ScalingConfig(
            # Two numbers make the group elastic; the annotation is that of an older class.
            num_workers=most if fewest == most else (fewest, most),  # type: ignore[arg-type]
            use_gpu=config.use_gpu,
            resources_per_worker={"GPU" if config.use_gpu else "CPU": 1, **placed("train_worker")},
        ),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=checkpoints_of(tracker.run_id, config.output),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except BaseException as error:  # raised in the caller's thread
            outcome["error"] = error

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    _show_progress(config, board, record, thread)
    if "error" in outcome:
        raise _readable(outcome["error"])
    result = outcome["result"]
    with writing("the trained model"):
        _take_bundles(result.checkpoint, config.output)
    record.finish()
    return {k: float(v) for k, v in (result.metrics or {}).items() if isinstance(v, int | float)}


def _take_bundles(checkpoint: Checkpoint, output: Path) -> None:
    def take(bundle: Path) -> None:
        replace_folder(output / bundle.name, lambda target: shutil.copytree(bundle, target))

    with checkpoint.as_directory() as folder:
        for bundle in (Path(folder) / KEPT).glob("*"):
            take(bundle)


def _readable(error: BaseException) -> BaseException:
    """Return our own error that Ray Train wrapped, or one with the last line of Ray's message."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), error.__cause__]:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, HyperFleetError):
            return cause
    if not isinstance(error, TrainingFailedError):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    readable = ServiceError(
        f"training failed: {lines[-1] if lines else type(error).__name__}; workers' logs are below "
        "/tmp/ray/session_latest/logs/train of their nodes; the same command goes on from the last checkpoint"
    )
    readable.__cause__ = error
    return readable


def _show_progress(
    config: TrainRunConfig, board: Any, record: TrainingRecord, thread: threading.Thread
) -> None:
    with progress_bar() as progress:
        bar = progress.add_task(f"train {config.train.method}", total=None, note="starting workers")
        state, moved_s = TrainProgress(), time.monotonic()
        while thread.is_alive():
            thread.join(PROGRESS_INTERVAL_S)
            before, state = state, ray.get(board.read.remote())
            moved_s = moved_s if state == before else time.monotonic()
            if time.monotonic() - moved_s > PATIENCE_S:
                raise ServiceError(
                    f"no training worker has moved in {PATIENCE_S:.0f} s; {config.num_workers} are wanted "
                    f"and the cluster has {resources_line()}: add nodes, lower --num-workers or give "
                    "--min-workers; the same command goes on from the last checkpoint"
                )
            progress.update(bar, completed=state.step, total=state.num_steps or None, note=state.note)
            record.update()
        if state.num_steps:
            progress.update(bar, completed=state.num_steps, note="done")
