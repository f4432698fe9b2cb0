"""Preparation of a public data set for `Corpus`: annotations, clip store, devices.

The released files are read in place and never changed. As in rendering, every step writes complete files or
none, and dataset.json records the sources of the folder.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console

from hyperfleet.datasets.categories import CaptionCategories
from hyperfleet.datasets.clip_store import ClipStore
from hyperfleet.datasets.corpus import STORE_FILE, TOKENIZER_FILE
from hyperfleet.datasets.device_map import DeviceMap, DeviceSample
from hyperfleet.datasets.official import RELEASES, OfficialData, find_videos, read_official
from hyperfleet.datasets.partition import num_held_out, partition_videos
from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.errors import DataError
from hyperfleet.weights.local_cache import cached_hub_file
from pipelines.commands.data import PrepareConfig
from pipelines.progress import progress_bar
from pipelines.render_data import build_clip_store, report_skipped, take_up, write_state

BERT_REPOSITORIES = ("google-bert/bert-base-uncased", "bert-base-uncased")
BERT_VOCAB_SIZE = 30522
MAX_VIDEO_KINDS = 20

# As in FleetQA: the last fifth of a device's timeline is real time.
HISTORY_END = 0.8


def prepare(config: PrepareConfig, *, workers: int | None = None, show_progress: bool = True) -> Path:
    """Prepare a data set and return its folder, which `Corpus.open` reads.

    A finished data set of the same configuration is kept, and so is a clip store that is there already.
    `workers` is the number of videos decoded at once (default: all cores Ray has; 0: in this process).

    Raises:
        ConfigError: more devices than videos.
        DataError: files are missing or broken, no video exists or can be decoded, or the output folder holds
            other files or cannot be written.
    """
    out_dir = (config.output or Path("data") / config.dataset).resolve()
    for what, folder in (("annotations", config.annotations), ("videos", config.videos)):
        if not folder.is_dir():
            raise DataError(
                f"no folder of {what} at {folder}; expected that of {RELEASES[config.dataset].source}"
            )
    try:
        if not take_up(out_dir, config, (TOKENIZER_FILE, STORE_FILE, "device_map.csv")):
            _prepare(config, out_dir, workers, show_progress)
    except OSError as error:
        raise DataError(
            f"cannot write the data set to {out_dir}: {error}; make room there or choose another folder, "
            "and run the same command again"
        ) from error
    return out_dir


def _prepare(config: PrepareConfig, out_dir: Path, workers: int | None, show_progress: bool) -> None:
    release = RELEASES[config.dataset]
    data = read_official(
        config.dataset,
        config.annotations,
        protocol=config.protocol,
        retrieval_cut=config.retrieval_cut,
        seed=config.seed,
    )
    live = list(dict.fromkeys(data.videos["test"]))
    history = [
        video
        for video in dict.fromkeys((*data.videos["train"], *data.videos["val"]))
        if video not in set(live)
    ]
    found = find_videos(release, config.videos, [*history, *live])
    kind = _kinds(data, history, [*history, *live], config.seed)
    device_map = _spread_over_devices(config, dict(found), history, live, kind)
    data.write(out_dir)
    tokenizer, tokenizer_source = _tokenizer(config, data)
    tokenizer.save(out_dir / TOKENIZER_FILE)
    device_map.write(
        out_dir,
        [
            {"device_id": device, "family": "", "seen": seen}
            for device, seen in zip(device_map.device_id.tolist(), device_map.seen.tolist(), strict=True)
        ],
    )
    console = Console(stderr=True)
    for finding in data.findings:
        console.print(str(finding), style="yellow", highlight=False)
    store_path = out_dir / STORE_FILE
    if not store_path.is_file():
        with progress_bar(console, show=show_progress) as progress:
            build_clip_store(
                store_path,
                found,
                num_stored_frames=config.stored_frames,
                short_side=config.store_short_side,
                quality=config.store_quality,
                workers=workers,
                progress=progress,
            )
    store = ClipStore(store_path)
    report_skipped(store, len(found))
    write_state(
        out_dir,
        config,
        finished=True,
        task=data.task,
        samples=data.num_samples,
        videos={name: len(set(videos)) for name, videos in data.videos.items()},
        videos_decoded=len(store),
        videos_skipped=len(store.skipped),
        tokenizer=tokenizer_source,
        findings=[asdict(finding) for finding in data.findings],
    )


def _tokenizer(config: PrepareConfig, data: OfficialData) -> tuple[QuestionTokenizer, str]:
    path = config.bert_vocab or cached_hub_file(BERT_REPOSITORIES, ("vocab.txt",))
    if path is not None:
        return QuestionTokenizer.from_vocab_file(path), str(path)
    return QuestionTokenizer.train(data.train_texts, BERT_VOCAB_SIZE), "trained on the training texts"


def _kinds(data: OfficialData, history: list[str], videos: list[str], seed: int) -> dict[str, int]:
    # The tastes of devices: the categories of the annotations, or clusters of the captions.
    if all(video in data.category for video in videos):
        return {video: data.category[video] for video in videos}
    clusters = CaptionCategories(
        [data.texts[video] for video in history], max_categories=MAX_VIDEO_KINDS, seed=seed
    )
    return dict(zip(videos, clusters.of([data.texts[video] for video in videos]).tolist(), strict=True))


def _spread_over_devices(
    config: PrepareConfig,
    file_of: Mapping[str, Path],
    history: list[str],
    live: list[str],
    kind: Mapping[str, int],
) -> DeviceMap:
    owners = partition_videos(
        history, live, kind, num_devices=config.num_devices, alpha=config.alpha, seed=config.seed
    )
    num_seen = config.num_devices - num_held_out(config.num_devices)
    samples = []
    spans: tuple[tuple[Literal["history", "realtime"], float, float], ...] = (
        ("history", 0.0, HISTORY_END),
        ("realtime", HISTORY_END, 1.0),
    )
    for owner, (split, start, end) in zip(owners, spans, strict=True):
        own: dict[int, list[str]] = {}
        for video, device in owner.items():
            own.setdefault(device, []).append(video)
        for device, videos in sorted(own.items()):
            samples += [
                DeviceSample(
                    client_id=device,
                    sample_path=file_of[video].relative_to(config.videos).as_posix(),
                    label_name=str(kind[video]),
                    label_id=kind[video],
                    split=split,
                    t=round(start + (end - start) * (place + 0.5) / len(videos), 4),
                    seen=device < num_seen,
                )
                for place, video in enumerate(videos)
            ]
    return DeviceMap.from_samples(samples, dict.fromkeys(range(config.num_devices), ""))
