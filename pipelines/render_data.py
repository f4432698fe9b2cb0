"""Rendering of a FleetQA data set: videos, annotations and clip store, on all cores.

Every step writes complete files or none, and dataset.json records their configuration: a finished data set is
kept, an interrupted one is continued. On a cluster, every machine must see the folder.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import ray
from ray.exceptions import RayTaskError
from rich.console import Console
from rich.progress import Progress

from actors.placement import num_available
from hyperfleet.datasets.clip_store import ClipStore, StoredClip, decode_clip, write_clips
from hyperfleet.datasets.corpus import STORE_FILE
from hyperfleet.datasets.fleetqa.files import ANNOTATION_FILES, VIDEOS_DIR, write_annotations
from hyperfleet.datasets.fleetqa.plan import plan_clips
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.writer import render_clip
from hyperfleet.errors import ConfigError, DataError
from pipelines.progress import progress_bar
from pipelines.runtime import connect
from pipelines.storage import writing_to

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DATASET_FILE = "dataset.json"
FORMAT = 2

# Large enough to hide the cost of starting a task, small enough for the bar to move.
CLIPS_PER_TASK = 32

Item = TypeVar("Item")
Result = TypeVar("Result")


def render(
    config: FleetQAConfig, out_dir: Path, *, workers: int | None = None, show_progress: bool = True
) -> Path:
    """Render a data set into `out_dir` and return that folder, which `Corpus.open` reads.

    A finished data set of the same configuration is kept. `workers` clips are drawn at once (default: one per
    core of Ray); 0 draws them in this process, without Ray.

    Raises:
        ConfigError: `workers` is negative.
        DataError: `out_dir` holds other files or cannot be written, or no video could be decoded.
    """
    if workers is not None and workers < 0:
        raise ConfigError(
            f"workers must be >= 0, got {workers}; 0 renders in this process, None on all cores"
        )
    out_dir = out_dir.resolve()
    try:
        if not take_up(out_dir, config, _files()):
            _render(config, out_dir, workers, show_progress)
    except OSError as error:
        raise DataError(
            f"cannot write the data set to {out_dir}: {error}; make room there or choose another folder, "
            "and run the same command again: finished files are kept"
        ) from error
    return out_dir


def _render(config: FleetQAConfig, out_dir: Path, workers: int | None, show_progress: bool) -> None:
    videos_dir = out_dir / VIDEOS_DIR
    videos_dir.mkdir(parents=True, exist_ok=True)
    plans = plan_clips(config)
    with progress_bar(Console(stderr=True), show=show_progress) as progress:
        draw = partial(render_clip, config, videos_dir)
        truths = list(_spread(draw, plans, videos_dir, workers, progress, "rendering videos"))
        write_annotations(out_dir, config, truths)
        store = build_clip_store(
            out_dir / STORE_FILE,
            [(plan.video_id, videos_dir / f"{plan.video_id}.mp4") for plan in plans],
            num_stored_frames=config.stored_frames,
            short_side=config.store_short_side,
            quality=config.store_quality,
            workers=workers,
            progress=progress,
        )
    report_skipped(store, len(plans))
    write_state(out_dir, config, finished=True)


def build_clip_store(
    path: Path,
    videos: Sequence[tuple[str, Path]],
    *,
    num_stored_frames: int,
    short_side: int,
    quality: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ClipStore:
    """Decode (video id, file) pairs once into a clip store of `num_stored_frames` square pictures per clip.

    Missing and broken videos are left out; `ClipStore.skipped` lists them with the reason.

    Raises:
        DataError: not a single video could be decoded.
    """
    decode = partial(_decode, num_stored_frames=num_stored_frames, short_side=short_side, quality=quality)
    where = videos[0][1].parent if videos else path.parent
    clips = _spread(decode, videos, where, workers, progress or progress_bar(show=False), "decoding videos")
    write_clips(path, clips, frame_side=short_side, num_stored_frames=num_stored_frames)
    return ClipStore(path)


def _decode(video: tuple[str, Path], *, num_stored_frames: int, short_side: int, quality: int) -> StoredClip:
    video_id, path = video
    return decode_clip(
        video_id, path, num_stored_frames=num_stored_frames, short_side=short_side, quality=quality
    )


def _spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    folder: Path,
    workers: int | None,
    progress: Progress,
    description: str,
) -> Iterator[Result]:
    """Apply `function`, which reads or writes `folder`, to all items; yield the results in order."""
    bar = progress.add_task(description, total=len(items), note="")
    results = map(function, items) if workers == 0 else _spread_on_ray(function, items, folder, workers)
    for result in results:
        progress.advance(bar)
        yield result


def _spread_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], folder: Path, workers: int | None
) -> Iterator[Result]:
    connect()
    limit = 2 * (workers or max(1, num_available("CPU")))
    task: Any = ray.remote(_apply_to_chunk).options(**writing_to(folder))
    shared = ray.put(function)
    running: deque[ray.ObjectRef[list[Result]]] = deque()
    for start in range(0, len(items), CLIPS_PER_TASK):
        running.append(task.remote(shared, items[start : start + CLIPS_PER_TASK]))
        # Waiting for the oldest chunk bounds the memory and keeps the order.
        if len(running) >= limit:
            yield from _result(running.popleft())
    while running:
        yield from _result(running.popleft())


def _result(chunk: "ray.ObjectRef[list[Result]]") -> list[Result]:
    try:
        return ray.get(chunk)
    except RayTaskError as error:
        # Raise the cause, not Ray's wrapper.
        raise error.cause from error


def _apply_to_chunk(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    # Each core already has its own worker.
    cv2.setNumThreads(1)
    return [function(item) for item in items]


def report_skipped(store: ClipStore, num_videos: int) -> None:
    """Print the number of videos without pictures, and the reason for the first."""
    if store.skipped:
        reason = next(iter(store.skipped.values()))
        Console(stderr=True).print(
            f"{len(store.skipped)} of {num_videos} videos could not be decoded and are left out; the "
            f"first: {reason}. To try them again, replace or delete them, delete {store.path}, and run the "
            "same command.",
            style="yellow",
        )


def take_up(out_dir: Path, config: "DataclassInstance", files: Iterable[str]) -> bool:
    """Claim a folder for a configuration; return whether its data set, the `files`, is already finished.

    Raises:
        DataError: the folder holds other files, or a data set of another configuration.
    """
    state_path = out_dir / DATASET_FILE
    if not state_path.is_file():
        if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
            raise DataError(
                f"{out_dir} holds something that is no data set of HyperFleet (no {DATASET_FILE}); "
                "choose another folder"
            )
        out_dir.mkdir(parents=True, exist_ok=True)
        write_state(out_dir, config, finished=False)
        return False
    try:
        state = json.loads(state_path.read_text(encoding="utf-8"))
        found = {"format": state["format"], **state["config"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{state_path} is broken ({error!r}); delete {out_dir} and run again") from error
    wanted = {"format": FORMAT, **_plain(config)}
    differences = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} now"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise DataError(
            f"{out_dir} holds a data set of another configuration: {'; '.join(differences)}; choose "
            "another folder, or delete this one to make it again"
        )
    return bool(state.get("finished")) and all((out_dir / name).is_file() for name in files)


def write_state(out_dir: Path, config: "DataclassInstance", *, finished: bool, **facts: Any) -> None:
    """Write dataset.json: the configuration, whether all files are complete, and `facts` for the reader."""
    state = {"format": FORMAT, "finished": finished, "config": _plain(config), **facts}
    partial_path = out_dir / f"{DATASET_FILE}.partial"
    partial_path.write_text(json.dumps(state, indent=2), encoding="utf-8")
    os.replace(partial_path, out_dir / DATASET_FILE)


def _files() -> Iterable[str]:
    return *ANNOTATION_FILES, STORE_FILE


def _plain(config: "DataclassInstance") -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return plain
