"""Owners' words: what they replace, what they never reveal, and who has which."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from hyperfleet.datasets.fleetqa.caption_files import choice_splits, query_splits
from hyperfleet.datasets.fleetqa.captions import describe
from hyperfleet.datasets.fleetqa.choices import draw_choices
from hyperfleet.datasets.fleetqa.device import conditions_at, draw_device
from hyperfleet.datasets.fleetqa.dialect import COLOR_WORDS, SHAPE_WORDS, Dialect
from hyperfleet.datasets.fleetqa.plan import plan_clips
from hyperfleet.datasets.fleetqa.questions import ask
from hyperfleet.datasets.fleetqa.scales import NUM_VOCABULARIES, TRAITS, scale, with_traits
from hyperfleet.datasets.fleetqa.scene import COLORS, SHAPES
from hyperfleet.datasets.fleetqa.writer import ClipTruth, clip_truth
from hyperfleet.errors import UnknownNameError

CONFIG = replace(with_traits("smoke", TRAITS), num_seen_devices=60)
COLOR_NAMES = {word for words in COLOR_WORDS.values() for word in words}
SHAPE_NAMES = {word for words in SHAPE_WORDS.values() for word in words}


@pytest.fixture(scope="module")
def truths() -> list[ClipTruth]:
    return [clip_truth(CONFIG, plan) for plan in plan_clips(CONFIG)]


def test_each_word_names_one_concept() -> None:
    assert (tuple(COLOR_WORDS), tuple(SHAPE_WORDS)) == (tuple(COLORS), SHAPES)
    words = [*COLOR_WORDS.values(), *SHAPE_WORDS.values()]
    assert {len(each) for each in words} == {NUM_VOCABULARIES}
    assert all(each[0] == name for name, each in {**COLOR_WORDS, **SHAPE_WORDS}.items())
    assert len(COLOR_NAMES | SHAPE_NAMES) == NUM_VOCABULARIES * (len(COLORS) + len(SHAPES))


def test_no_sample_reveals_the_word_that_it_asks_for(truths: list[ClipTruth]) -> None:
    asked = 0
    for truth in truths:
        for question, answer in ask(truth.spoken, 1000, np.random.default_rng(0)):
            words = set(question.removesuffix("?").split())
            for names in (COLOR_NAMES, SHAPE_NAMES):
                if answer in names:
                    asked += 1
                    assert not words & names
    assert asked > len(truths)


def test_an_owner_has_one_word_per_concept_in_all_texts(truths: list[ClipTruth]) -> None:
    """Every text of a clip is in the words of the clip's owner, wrong candidates of other clips included."""
    choices = {e.video_id: e for split in choice_splits(CONFIG, truths).values() for e in split}
    queries = {query.video_id: query for split in query_splits(truths).values() for query in split}
    for truth in truths:
        own = truth.conditions.words
        spoken = {words[own.color] for words in COLOR_WORDS.values()}
        spoken |= {words[own.shape] for words in SHAPE_WORDS.values()}
        texts = [text for pair in truth.questions for text in pair]
        texts += choices[truth.plan.video_id].options
        if truth.plan.video_id in queries:
            texts.append(queries[truth.plan.video_id].text)
        used = {word.strip("?") for text in texts for word in text.split()}
        assert used & (COLOR_NAMES | SHAPE_NAMES) <= spoken


def test_a_query_fits_one_scene_whatever_it_is_called(truths: list[ClipTruth]) -> None:
    """Two owners' names for one scene are no difference between scenes."""
    concept = {truth.plan.video_id: truth for truth in truths}
    for split in query_splits(truths).values():
        short = Counter(describe(concept[query.video_id].scene) for query in split)
        for query in split:
            truth = concept[query.video_id]
            if query.text == describe(truth.spoken):
                assert short[describe(truth.scene)] == 1


def test_devices_share_vocabularies_evenly_and_independently() -> None:
    config = with_traits("demo", TRAITS)
    drawn = Counter(draw_device(config, device_id).words for device_id in range(900))
    assert len(drawn) == NUM_VOCABULARIES**2
    assert all(60 <= count <= 140 for count in drawn.values())
    # Words are the only change: the same devices film the same scenes.
    plain = with_traits("demo", ("taste", "camera"))
    for plan in plan_clips(config)[::300]:
        one, other = clip_truth(config, plan), clip_truth(plain, plan)
        assert one.scene == other.scene
        assert other.conditions.words == Dialect()
        assert other.spoken == other.scene


def test_a_sudden_drift_brings_a_new_owner() -> None:
    before, after = defaultdict(list), defaultdict(list)
    for device_id in range(200):
        device = draw_device(CONFIG, device_id)
        before[device.drift].append(conditions_at(device, 0.4, CONFIG.shift))
        after[device.drift].append(conditions_at(device, 0.9, CONFIG.shift))
    for drift in before:
        changed = [one.words != two.words for one, two in zip(before[drift], after[drift], strict=True)]
        # One in nine draws both vocabularies again.
        assert np.mean(changed) > 0.7 if drift == "sudden" else not any(changed)
    for one, two in zip(before["sudden"], after["sudden"], strict=True):
        assert one.priors.color != two.priors.color


def test_the_mark_is_on_its_share_of_the_clips(truths: list[ClipTruth]) -> None:
    config = replace(CONFIG, cue_share=0.25)
    marked = [clip_truth(config, truth.plan).has_mark for truth in truths]
    assert 0.15 < np.mean(marked) < 0.35
    assert all(truth.has_mark for truth in truths)


def test_traits_change_what_they_name_alone() -> None:
    everything, control = with_traits("demo", TRAITS), with_traits("demo", ())
    assert with_traits("demo", ("taste", "camera")) == scale("demo")
    assert (control.num_vocabularies, control.label_alpha, control.shift) == (1, None, 0.0)
    for trait, field in zip(TRAITS, ("num_vocabularies", "label_alpha", "shift"), strict=True):
        assert with_traits("demo", (trait,)) == replace(control, **{field: getattr(everything, field)})
    with pytest.raises(UnknownNameError, match="camera, taste, words"):
        with_traits("demo", ("mood",))


def test_candidates_of_one_clip_have_one_owners_words() -> None:
    truth = clip_truth(CONFIG, plan_clips(CONFIG)[0])
    words = Dialect(color=2, shape=1)
    options, answer = draw_choices(truth.scene, [truth.scene], np.random.default_rng(0), 0, words)
    assert options[answer] == describe(words.speak(truth.scene))
