"""Writer of the captions, multiple-choice examples and retrieval queries of FleetQA, as MSR-VTT files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyperfleet.datasets.categories import CaptionCategories
from hyperfleet.datasets.corpus import SPLITS, choices_file
from hyperfleet.datasets.fleetqa.captions import NUM_WORDINGS, choose_queries, describe, draw_captions
from hyperfleet.datasets.fleetqa.choices import draw_choices
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.scene import Scene
from hyperfleet.datasets.fleetqa.writer import ClipTruth
from hyperfleet.datasets.multiple_choice import ChoiceExample, write_msrvtt_mc
from hyperfleet.datasets.retrieval import (
    CUTS,
    DATA_FILE,
    VAL_FILE,
    Caption,
    CaptionedVideo,
    Query,
    write_msrvtt_data,
    write_queries,
    write_video_list,
)
from hyperfleet.seeding import numpy_generator

# History clips are for training and live clips for test, most like this cut of MSR-VTT.
CUT = CUTS["9k-1ka"]
OFFICIAL_SPLIT = {"train": "train", "val": "validate", "test": "test"}
MAX_TEST_QUERIES = 1000

CAPTION_FILES = (*(choices_file(name) for name in SPLITS), DATA_FILE, CUT.train_file, VAL_FILE, CUT.test_file)


def write_captions(root: Path, config: FleetQAConfig, truths: Sequence[ClipTruth]) -> list[str]:
    """Write `CAPTION_FILES` into `root` and return the training captions."""
    queries = query_splits(truths)
    captions = _captions(config, truths, queries)
    train_videos = [truth.plan.video_id for truth in truths if truth.plan.split == "train"]
    in_train = set(train_videos)
    train_texts = [caption.text for caption in captions if caption.video_id in in_train]
    categories = CaptionCategories(train_texts, seed=config.seed)
    videos = [
        CaptionedVideo(
            video_id=truth.plan.video_id, category=truth.category_id, split=OFFICIAL_SPLIT[truth.plan.split]
        )
        for truth in truths
    ]
    numbers = categories.of([caption.text for caption in captions]).tolist()
    write_msrvtt_data(
        root / DATA_FILE,
        videos,
        [replace(caption, category=number) for caption, number in zip(captions, numbers, strict=True)],
    )
    write_video_list(root / CUT.train_file, train_videos)
    write_queries(root / VAL_FILE, queries["val"])
    write_queries(root / CUT.test_file, queries["test"])
    for name, examples in choice_splits(config, truths).items():
        numbers = categories.of([example.options[example.answer] for example in examples]).tolist()
        write_msrvtt_mc(
            root / choices_file(name),
            [replace(example, category=number) for example, number in zip(examples, numbers, strict=True)],
        )
    return train_texts


def choice_splits(config: FleetQAConfig, truths: Sequence[ClipTruth]) -> dict[str, list[ChoiceExample]]:
    """Draw the multiple-choice examples: one per clip, in train one per wording, numbered in clip order.

    Candidates come from clips of the same side: history for train and val, live for test.
    """
    live = [truth.scene for truth in truths if truth.plan.split == "test"]
    history = [truth.scene for truth in truths if truth.plan.split != "test"]
    splits: dict[str, list[ChoiceExample]] = {name: [] for name in SPLITS}
    next_id = 0
    for truth in truths:
        rng = numpy_generator(config.seed, "choices", truth.plan.video_number)
        others = live if truth.plan.split == "test" else history
        for wording in range(NUM_WORDINGS if truth.plan.split == "train" else 1):
            options, answer = draw_choices(truth.scene, others, rng, wording, truth.conditions.words)
            splits[truth.plan.split].append(
                ChoiceExample(
                    id=next_id,
                    video_id=truth.plan.video_id,
                    options=tuple(options),
                    answer=answer,
                    title=f"msr{truth.plan.video_number}",
                )
            )
            next_id += 1
    return splits


def query_splits(truths: Sequence[ClipTruth]) -> dict[str, list[Query]]:
    """Choose the retrieval queries: val from all clips, test one live clip per device, at most 1,000 each."""
    groups: dict[str, dict[int, list[tuple[str, Scene]]]] = {"val": {}, "test": {}}
    for truth in truths:
        if truth.plan.split in groups:
            group = truth.plan.device_id if truth.plan.split == "test" else truth.plan.video_number
            groups[truth.plan.split].setdefault(group, []).append((truth.plan.video_id, truth.scene))
    spoken = {truth.plan.video_id: truth.spoken for truth in truths}
    queries: dict[str, list[Query]] = {}
    next_id = 0
    for name, by_group in groups.items():
        chosen = choose_queries(list(by_group.values())[:MAX_TEST_QUERIES])
        queries[name] = [
            Query(id=number, video_id=video_id, text=describe(spoken[video_id], detail=detail))
            for number, (video_id, detail) in enumerate(chosen.items(), next_id)
        ]
        next_id += len(chosen)
    return queries


def _captions(
    config: FleetQAConfig, truths: Sequence[ClipTruth], queries: dict[str, list[Query]]
) -> list[Caption]:
    query_of = {query.video_id: query.text for split in queries.values() for query in split}
    captions: list[Caption] = []
    for truth in truths:
        video_id = truth.plan.video_id
        rng = numpy_generator(config.seed, "captions", truth.plan.video_number)
        for text in draw_captions(truth.spoken, rng, query_of.get(video_id) or describe(truth.spoken)):
            captions.append(Caption(id=len(captions), video_id=video_id, text=text))
    return captions
