"""Readers of multiple choice and video-text retrieval: MSRVTT-MC and the captions of MSR-VTT."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hyperfleet.datasets.categories import CaptionCategories
from hyperfleet.datasets.corpus import choices_file
from hyperfleet.datasets.multiple_choice import NUM_CANDIDATES, ChoiceExample, read_msrvtt_mc, write_msrvtt_mc
from hyperfleet.datasets.official.release import OfficialData, Protocol, Release, check_size, find_file
from hyperfleet.datasets.records import Finding
from hyperfleet.datasets.retrieval import (
    CUTS,
    DATA_FILE,
    VAL_FILE,
    Caption,
    CaptionedVideo,
    Cut,
    Query,
    first_queries,
    read_msrvtt_data,
    read_queries,
    read_video_list,
    write_msrvtt_data,
    write_queries,
    write_video_list,
)
from hyperfleet.datasets.task_names import MULTIPLE_CHOICE, RETRIEVAL
from hyperfleet.errors import DataError
from hyperfleet.seeding import numpy_generator


@dataclass(frozen=True, slots=True)
class _Captions:
    # MSRVTT_data.json without captions of unknown videos; `of` holds the captions of each video.
    path: Path
    videos: dict[str, CaptionedVideo]
    captions: tuple[Caption, ...]
    of: dict[str, list[str]]
    findings: list[Finding]

    def in_split(self, *splits: str) -> list[str]:
        return [name for name, video in self.videos.items() if video.split in splits and name in self.of]


def read_choices(release: Release, folder: Path, protocol: Protocol, seed: int) -> OfficialData:
    """Read MSRVTT-MC, which has only a test file, and make train and val from MSR-VTT's captions.

    A training example is a caption of an official training video (6,513) and four captions of others;
    validation has one example per official validation video (497). These are the 7k videos of retrieval; the
    9k contain 1,990 of the test videos. With the public protocol, both sets of videos are for training, and
    validation uses the test file.

    Raises:
        DataError: a file is missing, broken or empty.
    """
    path = find_file(release, folder, "test file", ("msrvtt_mc_test.jsonl", "msrvtt_mc_test.json"))
    test = read_msrvtt_mc(path)
    known = _read_captions(release, folder)
    findings = [*known.findings, *check_size(release, path, "test", len(test))]
    in_test = {example.video_id for example in test}
    train_videos = known.in_split("train", "validate") if protocol == "public" else known.in_split("train")
    leaked = [video_id for video_id in train_videos if video_id in in_test]
    if leaked:
        what = "training videos that are in the test file, left out"
        findings.append(Finding(file=known.path.name, what=what, count=len(leaked), first=leaked[0]))
        train_videos = [video_id for video_id in train_videos if video_id not in in_test]
    first_id = 1 + max(example.id for example in test)
    train = _make_choices(known, train_videos, train_videos, None, first_id, seed)
    val = test
    if protocol == "honest":
        val_videos = [name for name in known.in_split("validate") if name not in in_test]
        val = _make_choices(known, val_videos, [*train_videos, *val_videos], 1, first_id + len(train), seed)
    categories = CaptionCategories([example.options[example.answer] for example in train], seed=seed)
    splits = {
        name: _with_categories(examples, categories)
        for name, examples in (("train", train), ("val", val), ("test", test))
    }
    return OfficialData(
        task=MULTIPLE_CHOICE,
        videos={name: tuple(dict.fromkeys(one.video_id for one in of)) for name, of in splits.items()},
        num_samples={name: len(examples) for name, examples in splits.items()},
        train_texts=[example.options[example.answer] for example in train],
        category=_categories(known),
        texts=_texts(known) | {one.video_id: one.options[one.answer] for one in test},
        findings=tuple(findings),
        write=partial(_write_choices, splits),
    )


def read_retrieval(
    release: Release, folder: Path, protocol: Protocol, seed: int, cut_name: str
) -> OfficialData:
    """Read a cut of MSR-VTT. Videos of the official validation split are for validation, not training.

    With the public protocol they are for training, and validation uses the test queries. The full cut has no
    table of queries: the first caption of each test video is its query.

    Raises:
        DataError: a file is missing, broken or empty.
    """
    cut = CUTS[cut_name]
    known = _read_captions(release, folder)
    findings = list(known.findings)
    if cut.name == "full":
        train, test = known.in_split("train"), first_queries(known.in_split("test"), known.captions)
        train_path = test_path = known.path
        findings += check_size(release, known.path, "full val", len(known.in_split("validate")))
    else:
        train_path = find_file(release, folder, "list of training videos", (cut.train_file,))
        test_path = find_file(release, folder, "test queries", (cut.test_file,))
        train, test = list(read_video_list(train_path)), read_queries(test_path)
    findings += check_size(release, train_path, f"{cut.name} train", len(train))
    findings += check_size(release, test_path, f"{cut.name} test", len(test))
    train, test = _known_videos(known, train, test, (train_path, test_path), findings)
    val = test
    if protocol == "honest":
        held_out = known.in_split("validate")
        train = [video_id for video_id in train if video_id not in set(held_out)]
        val = first_queries(held_out, known.captions, first_id=1 + max(query.id for query in test))
    if not train or not val:
        raise DataError(
            f"{known.path}: {len(train)} videos are left to train and {len(val)} to validate on; expected "
            "videos of the splits 'train' and 'validate' there, or use the protocol 'public'"
        )
    in_train = set(train)
    train_texts = [caption.text for caption in known.captions if caption.video_id in in_train]
    numbers = CaptionCategories(train_texts, seed=seed).of([caption.text for caption in known.captions])
    captions = [
        replace(caption, category=number)
        for caption, number in zip(known.captions, numbers.tolist(), strict=True)
    ]
    return OfficialData(
        task=RETRIEVAL,
        videos={
            "train": tuple(train),
            "val": tuple(query.video_id for query in val),
            "test": tuple(query.video_id for query in test),
        },
        num_samples={"train": len(train_texts), "val": len(val), "test": len(test)},
        train_texts=train_texts,
        category=_categories(known),
        texts=_texts(known),
        findings=tuple(findings),
        write=partial(_write_retrieval, cut, tuple(known.videos.values()), captions, train, val, test),
    )


def _read_captions(release: Release, folder: Path) -> _Captions:
    path = find_file(release, folder, "captions of MSR-VTT", (DATA_FILE,))
    videos, captions = read_msrvtt_data(path)
    by_id = {video.video_id: video for video in videos}
    findings = []
    strange = [caption for caption in captions if caption.video_id not in by_id]
    if strange:
        first = f"{strange[0].id} about {strange[0].video_id}"
        what = "captions of videos that are not in the list of videos, left out"
        findings.append(Finding(file=path.name, what=what, count=len(strange), first=first))
    of: dict[str, list[str]] = defaultdict(list)
    kept = tuple(caption for caption in captions if caption.video_id in by_id)
    for caption in kept:
        of[caption.video_id].append(caption.text)
    silent = [video_id for video_id in by_id if video_id not in of]
    if silent:
        what = "videos without a caption, left out"
        findings.append(Finding(file=path.name, what=what, count=len(silent), first=silent[0]))
    if not kept:
        raise DataError(f"{path} holds no caption of a video in its list; expected 20 captions per video")
    return _Captions(path, by_id, kept, dict(of), findings)


def _known_videos(
    known: _Captions,
    train: Sequence[str],
    test: Sequence[Query],
    paths: tuple[Path, Path],
    findings: list[Finding],
) -> tuple[list[str], tuple[Query, ...]]:
    in_test = {query.video_id for query in test}
    for path, names in zip(paths, (train, [query.video_id for query in test]), strict=True):
        strange = [name for name in names if name not in known.of]
        if strange:
            what = f"videos that have no caption in {DATA_FILE}, left out"
            findings.append(Finding(file=path.name, what=what, count=len(strange), first=strange[0]))
    both = [name for name in train if name in in_test]
    if both:
        what = "training videos that are test videos too, left out"
        findings.append(Finding(file=paths[0].name, what=what, count=len(both), first=both[0]))
    official = [name for name in train if name in known.of and known.videos[name].split == "test"]
    if official:
        what = "training videos of the official test split, as the 9k have"
        findings.append(Finding(file=paths[0].name, what=what, count=len(official), first=official[0]))
    kept = tuple(query for query in test if query.video_id in known.of)
    if not kept:
        raise DataError(
            f"{paths[1]}: none of its videos has a caption in {known.path}; expected the same videos"
        )
    return [name for name in train if name in known.of and name not in in_test], kept


def _make_choices(
    known: _Captions,
    video_ids: Sequence[str],
    pool: Sequence[str],
    per_video: int | None,
    first_id: int,
    seed: int,
) -> tuple[ChoiceExample, ...]:
    # False candidates are captions of other videos of the pool.
    if not video_ids or len(pool) < NUM_CANDIDATES:
        raise DataError(
            f"{known.path}: {len(video_ids)} videos among {len(pool)} are too few for {NUM_CANDIDATES} "
            "candidates; expected the captions of MSR-VTT with the splits 'train' and 'validate', or use "
            "the protocol 'public'"
        )
    examples: list[ChoiceExample] = []
    for video_id in video_ids:
        rng = numpy_generator(seed, "choices", video_id)
        own = set(known.of[video_id])
        for caption in known.of[video_id][:per_video]:
            options = _draw_others(known, pool, own, rng)
            answer = int(rng.integers(NUM_CANDIDATES))
            options.insert(answer, caption)
            number = first_id + len(examples)
            examples.append(
                ChoiceExample(id=number, video_id=video_id, options=tuple(options), answer=answer)
            )
    return tuple(examples)


def _draw_others(known: _Captions, pool: Sequence[str], own: set[str], rng: np.random.Generator) -> list[str]:
    others: list[str] = []
    # Skip captions of the video itself. Only tiny data sets need many draws.
    for _ in range(100 * NUM_CANDIDATES):
        said = known.of[pool[int(rng.integers(len(pool)))]]
        text = said[int(rng.integers(len(said)))]
        if text not in own and text not in others:
            others.append(text)
        if len(others) == NUM_CANDIDATES - 1:
            return others
    raise DataError(
        f"{known.path}: the captions of {len(pool)} videos are too similar to give {NUM_CANDIDATES} "
        "different candidates; expected the captions of MSR-VTT"
    )


def _with_categories(
    examples: Sequence[ChoiceExample], categories: CaptionCategories
) -> tuple[ChoiceExample, ...]:
    numbers = categories.of([example.options[example.answer] for example in examples])
    return tuple(
        replace(example, category=number) for example, number in zip(examples, numbers.tolist(), strict=True)
    )


def _categories(known: _Captions) -> dict[str, int]:
    return {video_id: video.category for video_id, video in known.videos.items()}


def _texts(known: _Captions) -> dict[str, str]:
    return {video_id: " ".join(said) for video_id, said in known.of.items()}


def _write_choices(splits: dict[str, tuple[ChoiceExample, ...]], root: Path) -> None:
    for name, examples in splits.items():
        write_msrvtt_mc(root / choices_file(name), examples)


def _write_retrieval(
    cut: Cut,
    videos: Sequence[CaptionedVideo],
    captions: Sequence[Caption],
    train: Sequence[str],
    val: Sequence[Query],
    test: Sequence[Query],
    root: Path,
) -> None:
    write_msrvtt_data(root / DATA_FILE, videos, captions)
    write_video_list(root / cut.train_file, train)
    write_queries(root / VAL_FILE, val)
    write_queries(root / cut.test_file, test)
