import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperfleet.datasets.fleetqa import scale
from hyperfleet.datasets.fleetqa.caption_files import (
    CAPTION_FILES,
    choice_splits,
    query_splits,
    write_captions,
)
from hyperfleet.datasets.fleetqa.captions import (
    CAPTIONS_PER_VIDEO,
    NUM_WORDINGS,
    choose_queries,
    describe,
    describe_all,
    draw_captions,
)
from hyperfleet.datasets.fleetqa.choices import HARD_ATTRIBUTES, altered, draw_choices
from hyperfleet.datasets.fleetqa.dialect import Dialect
from hyperfleet.datasets.fleetqa.plan import plan_clips
from hyperfleet.datasets.fleetqa.scene import BACKGROUNDS, COLORS, SHAPES, Scene
from hyperfleet.datasets.fleetqa.writer import ClipTruth, clip_truth

CROWDED = replace(scale("smoke"), num_seen_devices=100, object_weights=(0.4, 0.4, 0.2))
MAX_WORDS = 12


@pytest.fixture(scope="module")
def truths() -> list[ClipTruth]:
    return [clip_truth(CROWDED, plan) for plan in plan_clips(CROWDED)]


def _claims(text: str) -> set[tuple[str, str, str]]:
    """Parse (color, shape, motion) from a description, independently of how it is made."""
    still = r"(?:stays still|stands still|is still)"
    pattern = rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(?: (?:at the \w+|in the middle))?"
    pattern += rf"(?: (?:(?:moves|drifts|goes) (left|right|up|down)|({still})))?"
    return {
        (color, shape, motion or ("nowhere" if rests else ""))
        for color, shape, motion, rests in re.findall(pattern, text)
    }


def _is_true(text: str, scene: Scene) -> bool:
    there = {(thing.color, thing.shape, thing.motion) for thing in scene.objects}
    named = {(color, shape, "") for color, shape, _ in there}
    return _claims(text) <= there | named


def test_descriptions_are_true_short_and_complete(truths: list[ClipTruth]) -> None:
    for scene in (truth.scene for truth in truths):
        texts = [describe(scene, wording) for wording in range(NUM_WORDINGS)]
        assert len(set(texts)) == NUM_WORDINGS
        for text in texts:
            claims = _claims(text)
            assert _is_true(text, scene)
            assert len(claims) == len(scene.objects)
            assert sum(motion != "" for _, _, motion in claims) == (1 if len(claims) == 3 else len(claims))
            assert len(text.split()) <= MAX_WORDS
        assert " a orange" not in f" {' '.join(texts)}"


def test_one_caption_names_every_attribute(truths: list[ClipTruth]) -> None:
    words = dict(zip(BACKGROUNDS, ("grass", "sky", "sand", "bricks", "water", "night"), strict=True))
    for scene in (truth.scene for truth in truths):
        text = describe_all(scene)
        assert _is_true(re.sub(r" with the letter \w", "", text), scene)
        assert text.endswith(words[scene.background])
        assert text.count("large") + text.count("small") == len(scene.objects)
        assert ("later" in text) == any(thing.appears > 0 for thing in scene.objects)
        for thing in scene.objects:
            letter = f" with the letter {thing.letter}" if thing.letter else ""
            motion = "stays still" if thing.motion == "nowhere" else f"moves {thing.motion}"
            assert f"{thing.color} {thing.shape}{letter} {motion}" in text


def test_a_clip_has_twenty_different_captions_that_are_true(truths: list[ClipTruth]) -> None:
    for truth in truths:
        rng = np.random.default_rng(truth.plan.video_number)
        captions = draw_captions(truth.scene, rng, describe(truth.scene))

        assert len(set(captions)) == CAPTIONS_PER_VIDEO == 20
        assert captions[:2] == [describe(truth.scene), describe_all(truth.scene)]
        assert all(_is_true(re.sub(r" with the letter \w", "", text), truth.scene) for text in captions)


def test_queries_are_unique_and_fit_only_their_clip(truths: list[ClipTruth]) -> None:
    queries = query_splits(truths)
    scene_of = {truth.plan.video_id: truth.scene for truth in truths}
    device_of = {truth.plan.video_id: truth.plan.device_id for truth in truths}
    for name, split in queries.items():
        texts = [query.text for query in split]
        assert len(set(texts)) == len(texts)
        # A query with little detail is unique among the short descriptions of all clips, not only as text.
        short = Counter(describe(scene_of[query.video_id]) for query in split)
        for query in split:
            assert _is_true(query.text, scene_of[query.video_id])
            if query.text == describe(scene_of[query.video_id]):
                assert short[query.text] == 1, name
    assert len({device_of[query.video_id] for query in queries["test"]}) == len(queries["test"]) >= 102
    ids = [query.id for split in queries.values() for query in split]
    assert ids == list(range(len(ids)))


def test_clips_that_no_caption_distinguishes_are_skipped(truths: list[ClipTruth]) -> None:
    one, other = truths[0].scene, next(truth.scene for truth in truths if truth.scene != truths[0].scene)

    assert choose_queries([[("video0", one)], [("video1", one)]]) == {"video0": 0}
    chosen = choose_queries([[("video0", one)], [("video1", one), ("video2", other)]])
    assert list(chosen) == ["video0", "video2"]


@pytest.mark.heavy
def test_choices_hold_one_truth_and_two_that_differ_in_one_attribute(truths: list[ClipTruth]) -> None:
    rng = np.random.default_rng(3)
    scenes = [truth.scene for truth in truths]
    answers: Counter[int] = Counter()
    for scene in scenes:
        options, answer = draw_choices(scene, scenes, rng, wording=0, words=Dialect())

        answers[answer] += 1
        assert len(set(options)) == len(options) == 5
        assert [_is_true(option, scene) for option in options].index(True) == answer
        assert sum(_is_true(option, scene) for option in options) == 1
        truth = _claims(options[answer])
        changes = [_changed(truth, _claims(option)) for option in options if option != options[answer]]
        near = [change for change in changes if change in HARD_ATTRIBUTES]
        # Both change the same attribute, or the true one would be what the others have in common.
        assert any(near.count(attribute) >= 2 for attribute in HARD_ATTRIBUTES), options
    assert set(answers) == set(range(5))
    assert min(answers.values()) > 0.1 * len(scenes)


def _changed(one: set[tuple[str, str, str]], other: set[tuple[str, str, str]]) -> str:
    gone, new = one - other, other - one
    if len(gone) != 1 or len(new) != 1:
        return "several"
    differs = [name for name, a, b in zip(("color", "shape", "motion"), *gone, *new, strict=True) if a != b]
    return differs[0] if len(differs) == 1 else "several"


def test_altered_scenes_differ_in_one_attribute_of_one_object(truths: list[ClipTruth]) -> None:
    rng = np.random.default_rng(0)
    for scene in (truth.scene for truth in truths[:100]):
        for attribute in ("color", "motion", "shape"):
            for other in altered(scene, attribute, rng, 2):
                pairs = list(zip(scene.objects, other.objects, strict=True))
                (changed,) = [pair for pair in pairs if pair[0] != pair[1]]
                value = getattr(changed[1], attribute)
                assert replace(changed[0], **{attribute: value}) == changed[1]
                assert attribute == "motion" or value not in {
                    getattr(one, attribute) for one in scene.objects
                }


def test_choices_are_made_where_there_is_no_other_clip(truths: list[ClipTruth]) -> None:
    scene = truths[0].scene
    options, answer = draw_choices(scene, [scene], np.random.default_rng(0), wording=1, words=Dialect())
    assert [_is_true(option, scene) for option in options] == [place == answer for place in range(5)]


@pytest.mark.heavy
def test_train_has_an_example_a_wording_and_ids_are_unique(truths: list[ClipTruth]) -> None:
    splits = choice_splits(CROWDED, truths)
    num_clips = Counter(truth.plan.split for truth in truths)

    assert len(splits["train"]) == NUM_WORDINGS * num_clips["train"]
    assert (len(splits["val"]), len(splits["test"])) == (num_clips["val"], num_clips["test"])
    ids = [example.id for split in splits.values() for example in split]
    assert ids == list(range(len(ids)))


def test_files_are_equal_for_equal_seeds_and_in_the_published_form(
    truths: list[ClipTruth], tmp_path: Path
) -> None:
    few = [truth for truth in truths if truth.plan.device_id < 8 or truth.plan.split == "val"]
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        folder.mkdir()
        write_captions(folder, replace(CROWDED, seed=seed), few)

    for name in CAPTION_FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert (folders[0] / "MSRVTT_data.json").read_bytes() != (folders[2] / "MSRVTT_data.json").read_bytes()
    data = json.loads((folders[0] / "MSRVTT_data.json").read_text())
    assert {"video_id", "category", "url", "split", "id", "start time", "end time"} == set(data["videos"][0])
    assert {"caption", "video_id", "sen_id"} <= set(data["sentences"][0])
    said = {(sentence["video_id"], sentence["caption"]) for sentence in data["sentences"]}
    with (folders[0] / "MSRVTT_JSFUSION_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert all((row["video_id"], row["sentence"]) in said for row in rows)
    record = json.loads((folders[0] / "msrvtt_mc_test.jsonl").read_text().splitlines()[0])
    assert isinstance(record["answer"], str)
    assert len(record["options"]) == 5
