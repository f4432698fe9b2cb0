"""`hyperfleet tables`: train the missing cells in parallel on Ray, and write every table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from rich.console import Console

from actors.node_folder import NodeFolder
from actors.placement import num_available
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.scales import variant_name, with_traits
from hyperfleet.errors import DataError, HyperFleetError, ServiceError
from hyperfleet.evaluation.rendering import to_rich, wide_console
from hyperfleet.papers.experiments.cell import (
    CellResult,
    CellSpec,
    finished,
    read_cells,
    run_cell,
    train_warm,
)
from hyperfleet.papers.experiments.plan import FLEETQA, Preset, cells, preset, warm_key, warm_spec
from hyperfleet.papers.tables.page import build_tables, write_tables
from hyperfleet.tracking.mlflow_store import absolute_uri, default_tracking_uri, prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run
from pipelines.commands.models import TablesConfig
from pipelines.progress import progress_bar
from pipelines.render_data import DATASET_FILE, render
from pipelines.runtime import connect, disconnect
from pipelines.storage import for_all_nodes, writing_to

WARM_DIR, CELLS_DIR = "warm", "cells"


def tables(config: TablesConfig, console: Console) -> Path:
    """Train the missing cells if asked to, write the tables in every format, and return the HTML page.

    Raises:
        HyperFleetError: a data set, the store or a finished cell cannot be used.
    """
    size = preset(config.train or config.size)
    if config.seeds is not None:
        size = replace(size, seeds=config.seeds, ablation_seeds=config.seeds[:1])
    name = variant_name(config.train or config.size, config.personal)
    output = config.output / name
    prepared = {_dataset_name(folder): folder for folder in config.data}
    folders = {FLEETQA: Path("data") / variant_name(size.scale, config.personal), **prepared}
    if config.train is not None:
        connect(num_cpus=config.workers)
        try:
            render(with_traits(size.scale, config.personal), folders[FLEETQA])
            _train_missing(config, size, folders, output, console)
        finally:
            disconnect()
    measured, built = build_tables(read_cells(output / CELLS_DIR), output / CELLS_DIR)
    wide = wide_console(console)
    for table in built:
        wide.print(to_rich(table))
    return write_tables(measured, built, output, size=name)


def _dataset_name(folder: Path) -> str:
    path = folder / DATASET_FILE
    if not path.is_file():
        raise DataError(
            f"no prepared data set at {folder}: {DATASET_FILE} is missing; `hyperfleet data prepare`"
        )
    name: str = json.loads(path.read_text(encoding="utf-8"))["config"].get("dataset", folder.name)
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    # One unit of work: a cell, and the warm model that it starts from.
    spec: CellSpec
    data: NodeFolder
    folder: Path
    warm: CellSpec | None
    warm_folder: Path | None
    experiment: str
    tracking_uri: str
    torch_device: torch.device


def _train_missing(
    config: TablesConfig, size: Preset, folders: dict[str, Path], output: Path, console: Console
) -> None:
    uri = absolute_uri(config.tracking_uri) if config.tracking_uri else default_tracking_uri()
    experiment = prepare_store(uri)
    corpora = {name: Corpus.open(folder) for name, folder in folders.items()}
    digests = {name: corpus.digest() for name, corpus in corpora.items()}
    wanted = {
        name: tuple(task for task in corpus.tasks if config.tasks is None or task in config.tasks)
        for name, corpus in corpora.items()
    }
    data = {name: for_all_nodes(folder) for name, folder in folders.items()}
    missing = []
    for planned in cells(size, wanted):
        spec = replace(planned, data_digest=digests[planned.dataset])
        folder = (output / CELLS_DIR / spec.key).absolute()
        if finished(folder, spec) is not None:
            continue
        warm = warm_spec(spec)
        missing.append(
            _Job(
                spec=spec,
                data=data[spec.dataset],
                folder=folder,
                warm=warm,
                warm_folder=(output / WARM_DIR / warm_key(warm)).absolute() if warm else None,
                experiment=experiment,
                tracking_uri=uri,
                torch_device=torch.device("cuda" if num_available("GPU") else "cpu"),
            )
        )
    if missing:
        _run(missing, writing_to(output), console)


def _run(jobs: Sequence[_Job], where: dict[str, Any], console: Console) -> None:
    """Run warm stages and cells as Ray tasks; a cell waits only for its own warm model."""
    # One GPU or one core each; more cells at once would only take turns.
    on_ray: Any = ray.remote(num_cpus=1, num_gpus=int(num_available("GPU") > 0), max_retries=1, **where)
    warm_task, cell_task = on_ray(_warm), on_ray(_cell)
    warm_refs: dict[Path, Any] = {}
    running: dict[Any, str] = {}
    for job in jobs:
        if job.warm_folder is not None and job.warm_folder not in warm_refs:
            warm_refs[job.warm_folder] = warm_task.remote(job)
        waits_for = warm_refs[job.warm_folder] if job.warm_folder is not None else None
        running[cell_task.remote(job, waits_for)] = job.spec.key
    failed: list[tuple[str, BaseException]] = []
    with progress_bar(console) as progress:
        bar = progress.add_task("cells", total=len(jobs), note="")
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            key = running.pop(done)
            try:
                result: CellResult = ray.get(done)
                measures = ", ".join(f"{name} {100 * value:.1f}" for name, value in result.measures.items())
                console.print(f"{key}: {measures} ({result.train_s:.0f} s)", highlight=False)
            except RayTaskError as error:
                failed.append((key, error.cause if isinstance(error.cause, HyperFleetError) else error))
                console.print(f"[red]{key} failed[/]: {failed[-1][1]}", highlight=False)
            progress.advance(bar)
    if failed:
        raise ServiceError(
            f"{len(failed)} of {len(jobs)} cells failed, first {failed[0][0]}: {failed[0][1]}; the others "
            "are kept: run the same command again for the rest"
        )


def _warm(job: _Job) -> None:
    assert job.warm is not None
    assert job.warm_folder is not None
    torch.set_num_threads(1)
    train_warm(job.warm, job.data.path(), job.warm_folder, torch_device=job.torch_device)


def _cell(job: _Job, _: None) -> CellResult:
    torch.set_num_threads(1)
    tracker = open_run(job.experiment, tracking_uri=job.tracking_uri, run_name=job.spec.key)
    try:
        result = run_cell(
            job.spec,
            job.data.path(),
            job.folder,
            warm=job.warm_folder,
            tracker=tracker,
            torch_device=job.torch_device,
        )
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish()
    return result
