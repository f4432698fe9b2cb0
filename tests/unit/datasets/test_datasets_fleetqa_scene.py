import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hyperfleet.datasets.fleetqa import FleetQAConfig, scale
from hyperfleet.datasets.fleetqa.camera import MAX_SHAKE_PX, MAX_ZOOM
from hyperfleet.datasets.fleetqa.plan import plan_clips
from hyperfleet.datasets.fleetqa.questions import ask, question_kind
from hyperfleet.datasets.fleetqa.scales import SCALES
from hyperfleet.datasets.fleetqa.scene import (
    COLORS,
    COMMON_LETTERS,
    COUNTS,
    HEIGHT,
    MARK_LEFT,
    MARK_PATCH_PX,
    MARK_TOP,
    RESERVED_LETTERS,
    WIDTH,
    Scene,
)
from hyperfleet.datasets.fleetqa.writer import ClipTruth, clip_truth
from hyperfleet.errors import ConfigError, UnknownNameError

# More than any scene allows, so that `ask` leaves none out.
ALL_QUESTIONS = 1000
# Many objects, to make it hard.
CROWDED = replace(scale("smoke"), num_seen_devices=100, object_weights=(0.3, 0.4, 0.3))


@pytest.fixture(scope="module")
def truths() -> list[ClipTruth]:
    return [clip_truth(CROWDED, plan) for plan in plan_clips(CROWDED)]


def test_every_question_has_exactly_one_right_answer(truths: list[ClipTruth]) -> None:
    asked: Counter[str] = Counter()
    for truth in truths:
        pairs = ask(truth.spoken, ALL_QUESTIONS, np.random.default_rng(0))
        assert len({question for question, _ in pairs}) == len(pairs)
        for question, answer in pairs:
            assert _answers(truth.spoken, question) == {answer}, (question, truth.spoken)
            asked[question_kind(question)] += 1
    assert set(asked) == {"color", "shape", "letter", "background", "order", "motion", "count"}


def test_clips_ask_the_agreed_mix_of_questions(truths: list[ClipTruth]) -> None:
    kinds = Counter(question_kind(question) for truth in truths for question, _ in truth.questions)

    assert 4.9 <= kinds.total() / len(truths) <= CROWDED.questions_per_clip == 5
    assert 0.35 <= kinds["color"] / kinds.total() <= 0.40
    for truth in truths:
        assert set(truth.questions) <= set(ask(truth.spoken, ALL_QUESTIONS, np.random.default_rng(0)))
        has_letter = any(thing.letter for thing in truth.scene.objects)
        assert has_letter == any(question_kind(question) == "letter" for question, _ in truth.questions)


def test_objects_stay_in_the_crop_off_the_mark_and_apart(truths: list[ClipTruth]) -> None:
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    mark_corner = np.array([MARK_LEFT, MARK_TOP]) + 2 * MARK_PATCH_PX
    for truth in truths:
        visible = []
        for thing in truth.scene.objects:
            assert thing.radius > 9
            times = np.linspace(thing.appears, 1, 20)
            for zoom in (1.0, MAX_ZOOM):
                centers = middle + zoom * (thing.positions(times) - middle)
                low, high = centers - zoom * thing.radius, centers + zoom * thing.radius
                # The evaluation crop keeps the middle 202 of 240 pixels: 59 to 261 across, 19 to 221 down.
                assert (low >= (58, 18)).all()
                assert (high <= (262, 222)).all()
                assert (low - MAX_SHAKE_PX > mark_corner).any(axis=1).all()
            visible.append((thing, times))
        for one, times in visible:
            for other, _ in visible:
                if one is not other:
                    both = times[times >= other.appears]
                    gaps = np.linalg.norm(one.positions(both) - other.positions(both), axis=1)
                    assert (gaps > one.radius + other.radius).all()


def test_motion_is_large_and_in_the_named_direction(truths: list[ClipTruth]) -> None:
    for thing in (thing for truth in truths for thing in truth.scene.objects):
        dx, dy = np.array(thing.end) - np.array(thing.start)
        travelled = {"left": -dx, "right": dx, "up": -dy, "down": dy, "nowhere": 60 - abs(dx) - abs(dy)}
        assert travelled[thing.motion] >= 50
        assert min(abs(dx), abs(dy)) < 0.02


def test_names_of_colors_follow_from_true_hues() -> None:
    hues = sorted(COLORS.values())
    gaps = np.diff([*hues, hues[0] + 360])

    assert len(COLORS) == 8
    # Objects vary by 5 degrees to either side.
    assert gaps.min() > 2 * 5 + 10


def test_reserved_letters_are_only_in_live_clips(truths: list[ClipTruth]) -> None:
    def letters(split: str) -> set[str]:
        clips = [truth for truth in truths if truth.plan.split == split]
        return {thing.letter for truth in clips for thing in truth.scene.objects} - {""}

    assert not set(COMMON_LETTERS) & set(RESERVED_LETTERS)
    assert letters("train") <= set(COMMON_LETTERS)
    assert letters("val") <= set(COMMON_LETTERS)
    assert letters("test") & set(RESERVED_LETTERS)


def test_out_of_vocabulary_share_at_demo_scale() -> None:
    config = scale("demo")
    live = plan_clips(config)[-400:]
    answers = [answer for plan in live for _, answer in clip_truth(config, plan).questions]

    # No history clip shows a reserved letter, and 11,000 training questions hold every other answer.
    assert 0.06 <= np.mean([answer in set(RESERVED_LETTERS) for answer in answers]) <= 0.09


def test_plan_divides_videos_and_keeps_held_out_devices_out() -> None:
    config = scale("demo")
    plans = plan_clips(config)

    assert len(plans) == config.num_clips == 4400
    assert [plan.video_number for plan in plans] == list(range(4400))
    assert Counter(plan.split for plan in plans) == {"train": 2232, "val": 168, "test": 2000}
    held_out = [plan for plan in plans if plan.device_id >= 800]
    assert {plan.split for plan in held_out} == {"test"}
    assert {plan.seen for plan in held_out} == {False}
    assert all((plan.t > 0.8) == (plan.split == "test") for plan in plans)


def test_a_clip_depends_only_on_seed_and_number() -> None:
    config = scale("demo")
    plan = plan_clips(config)[17]

    assert clip_truth(config, plan) == clip_truth(config, plan)
    assert clip_truth(config, plan).scene != clip_truth(replace(config, seed=1), plan).scene
    # The ablations do not change the scenes.
    for change in ({"shift": 0.0}, {"cue_share": 0.0}, {"letter_share": 0.0}, {"num_vocabularies": 3}):
        other = replace(config, **change)
        scene = clip_truth(other, plan).scene
        assert [(thing.shape, thing.rgb, thing.start) for thing in scene.objects] == [
            (thing.shape, thing.rgb, thing.start) for thing in clip_truth(config, plan).scene.objects
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": -1.0}, "shift must be in 0..3, got -1"),
        ({"label_alpha": 0.0}, "use None for uniform priors"),
        ({"object_weights": (0.5, 0.4)}, "shares that sum to 1"),
        ({"object_weights": (0.25,) * 4}, "1 to 3 shares"),
        ({"num_seen_devices": 0}, "num_seen_devices must be in 1"),
        ({"num_seen_devices": 1, "history_clips": 1}, "no clip is left to train on"),
        ({"num_vocabularies": 4}, "num_vocabularies must be in 1"),
        ({"cue_share": 1.5}, "cue_share must be in 0..1"),
        ({"fps_choices": ()}, "frame rates of 5..60"),
        ({"min_seconds": 3.0}, "min_seconds <= max_seconds"),
        ({"letter_share": 1.5}, "letter_share must be in 0..1"),
        ({"store_quality": 60}, "store_quality must be in 90..100, got 60"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(scale("smoke"), **change)


def test_scales_have_names() -> None:
    assert set(SCALES) == {"smoke", "demo", "full", "paper"}
    with pytest.raises(UnknownNameError, match="expected one of: demo, full, paper, smoke"):
        scale("huge")
    assert isinstance(scale("full"), FleetQAConfig)


def _answers(scene: Scene, question: str) -> set[str]:
    """Answer a question by trying every object, independently of how questions are made."""
    things = scene.objects
    by_name: dict[str, Callable[[str], list[int]]] = {
        "shape": lambda name: [i for i, thing in enumerate(things) if thing.shape == name],
        "color": lambda name: [i for i, thing in enumerate(things) if thing.color == name],
        "motion": lambda name: [i for i, thing in enumerate(things) if thing.motion == name],
    }
    rules: list[tuple[str, str | None, str]] = [
        (r"what color is the object that moves (\w+)\?", "motion", "color"),
        (r"what color is the moving object\?", "moving", "color"),
        (r"what color is the object with a letter\?", "letter", "color"),
        (r"what color is the object (?:in|on) the .+\?", "any", "color"),
        (r"what color is the object\?", "any", "color"),
        (r"what color is the (\w+)\?", "shape", "color"),
        (r"what color appears last\?", "late", "color"),
        (r"what appears last\?", "late", "shape"),
        (r"what shape is the object\?", "any", "shape"),
        (r"what shape is the (\w+) object\?", "color", "shape"),
        (r"what shape moves (\w+)\?", "motion", "shape"),
        (r"where does the (\w+) object move\?", "color", "motion"),
        (r"where does the (\w+) move\?", "shape", "motion"),
        (r"what letter is on the (\w+)\?", "shape", "letter"),
        (r"what is behind the object\?", "any", "background"),
        (r"what is behind the (\w+)\?", "shape", "background"),
        (r"how many objects are in the video\?", None, "count"),
    ]
    for pattern, chooser, asked in rules:
        match = re.fullmatch(pattern, question)
        if match is None:
            continue
        if chooser is None:
            return {COUNTS[len(things) - 1]}
        if chooser in by_name:
            chosen = by_name[chooser](match.group(1))
        else:
            test = {
                "any": lambda thing: True,
                "moving": lambda thing: thing.motion != "nowhere",
                "letter": lambda thing: thing.letter != "",
                "late": lambda thing: thing.appears > 0,
            }[chooser]
            chosen = [i for i, thing in enumerate(things) if test(thing)]
        assert len(chosen) == 1, f"{question!r} fits objects {chosen}"
        return {scene.background if asked == "background" else getattr(things[chosen[0]], asked)}
    raise AssertionError(f"no rule for {question!r}")
