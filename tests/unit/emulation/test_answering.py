from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.cloud.generator import codecs_of
from hyperfleet.device import DeviceGroup, gather_samples
from hyperfleet.emulation.answering import FeatureTable, answer_pairs
from hyperfleet.emulation.feature_table import (
    ENCODE_BATCH,
    encode_all,
    encode_rows,
    encoding_batches,
    features_digest,
    join_parts,
    kept_features,
    live_samples,
)
from hyperfleet.errors import ConfigError, DataError, EmptyStreamError, UnknownNameError
from hyperfleet.messages import HeadReply, ModelLabel, encode_heads
from tests.worlds.devices_in_memory import World, tiny_models
from tests.worlds.toy_generators import FORMS, LAYOUT, generator_of, table_of

LABEL = ModelLabel(model="m", version="1", task="vqa")
CARRIED = [
    (form, name)
    for form in FORMS
    for name in codecs_of("full" if form == "no base" else form, LAYOUT, has_base=form != "no base")
]
TABLE = table_of(30)


HEADS_AT_ONCE = 7


def one_by_one(form: str, codec: str, sample: np.ndarray, head_of: np.ndarray) -> list[np.ndarray]:
    """Scores of each sample with the one head that was sent for it, as a device computes them.

    Heads are generated in the batches of the code under test: in others they differ in their last bits, and
    a lossy codec then may round to the next step.
    """
    generator = generator_of(form)
    distinct = sorted(set(head_of.tolist()))
    heads = {}
    for start in range(0, len(distinct), HEADS_AT_ONCE):
        block = distinct[start : start + HEADS_AT_ONCE]
        generated = generator.generate(TABLE.anchor[block])
        full = generated.full()
        for i, made_from in enumerate(block):
            alone = replace(generated, numbers=generated.numbers[[i]], full=partial(full.__getitem__, [i]))
            body = encode_heads(alone, codec=codec, label=LABEL)
            reply = HeadReply.from_bytes(body, expected=LAYOUT, num_heads=1, base=generator.base)
            heads[made_from] = reply.heads
    return [heads[h].scores(TABLE.hidden[[row]])[0] for row, h in zip(sample, head_of.tolist(), strict=True)]


@pytest.mark.parametrize(("form", "codec"), CARRIED)
def test_answers_are_those_of_one_head_a_sample(form: str, codec: str) -> None:
    rng = np.random.default_rng(1)
    # Some heads answer many samples, some one, and never in the order of the table.
    sample, head_of = (
        rng.integers(30, size=90),
        rng.permutation(np.r_[np.arange(30), rng.integers(5, size=60)]),
    )
    expected = one_by_one(form, codec, sample, head_of)
    answer, score = answer_pairs(generator_of(form), TABLE, sample, head_of, codec, HEADS_AT_ONCE)
    assert (answer.dtype, score.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(score, [each.max() for each in expected], rtol=1e-5, atol=1e-5)
    assert answer.tolist() == [each.argmax() for each in expected]
    assert len(set(answer.tolist())) > 5


def test_a_codec_that_loses_something_changes_the_scores() -> None:
    rows = np.arange(30)
    scores = {
        name: answer_pairs(generator_of("full"), TABLE, rows, rows, name)[1] for name in ("fp32", "int8")
    }
    assert 1e-4 < np.abs(scores["fp32"] - scores["int8"]).max() < 0.5


PAIRS = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40)


@given(pairs=PAIRS, cut=st.integers(0, 40), form=st.sampled_from(FORMS), heads_at_once=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_an_answer_depends_on_its_pair_alone_however_a_run_is_cut(pairs, cut, form, heads_at_once) -> None:
    generator = generator_of(form)
    sample, head_of = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    answer, score = answer_pairs(generator, TABLE, sample, head_of)
    parts = [
        answer_pairs(generator, TABLE, sample[part], head_of[part], heads_at_once=heads_at_once)
        for part in (slice(cut, None), slice(cut))
    ]
    np.testing.assert_allclose(np.concatenate([parts[1][1], parts[0][1]]), score, rtol=1e-5, atol=1e-5)
    assert np.concatenate([parts[1][0], parts[0][0]]).tolist() == answer.tolist()


def test_each_head_is_made_once_and_no_more_than_allowed_lie_in_memory() -> None:
    generator = generator_of("low_rank")
    generator.asked.clear()
    head_of = np.r_[np.zeros(3000, np.int64), np.arange(12)]
    answer, _ = answer_pairs(generator, TABLE, np.arange(3012) % 30, head_of, heads_at_once=5)
    assert generator.asked == [5, 5, 2]
    # 3,000 samples of one head are applied in several products.
    few, _ = answer_pairs(generator, TABLE, np.arange(30), np.zeros(30, np.int64))
    assert answer[:3000].tolist() == few.tolist() * 100


def test_a_head_without_finite_scores_leaves_the_static_answer() -> None:
    table = replace(TABLE, hidden=TABLE.hidden.copy())
    table.hidden[4] = np.inf
    answer, score = answer_pairs(generator_of("full"), table, np.array([3, 4, 4]), np.array([1, 1, 2]))
    assert np.isnan(score).tolist() == [False, True, True]
    assert answer[1:].tolist() == [77, 77]
    assert answer[0] < 20


def test_what_cannot_be_answered_is_refused() -> None:
    rows, generator = np.arange(3), generator_of("no base")
    with pytest.raises(UnknownNameError, match="unknown head codec 'fp8'"):
        answer_pairs(generator, TABLE, rows, rows, "fp8")
    with pytest.raises(ConfigError, match="cannot be sent as 'rank4'; choose from fp32"):
        answer_pairs(generator, TABLE, rows, rows, "rank4")
    with pytest.raises(ConfigError, match="heads_at_once must be >= 1, got 0"):
        answer_pairs(generator, TABLE, rows, rows, heads_at_once=0)
    with pytest.raises(DataError, match="head_of holds rows 0 to 30, the feature table has 30"):
        answer_pairs(generator, TABLE, rows, np.array([0, 30, 1]))
    with pytest.raises(DataError, match="sample holds rows -1 to 2"):
        answer_pairs(generator, TABLE, np.array([-1, 2, 0]), rows)


@dataclass
class LiveWorld(World):
    """A world that tells which devices it has, as the live data of a data set does."""

    @property
    def seen(self) -> dict[int, bool]:
        return dict.fromkeys(reversed(self.device_ids), True)


def group_of(world: World) -> DeviceGroup:
    personal, static = tiny_models()
    return DeviceGroup(personal=personal, static=static, store=world.store, seed=0)


def test_the_table_holds_what_the_devices_compute_in_their_order() -> None:
    world = LiveWorld((12, 0, 9, 1))
    samples = live_samples(world)
    table = encode_all(group_of(world), samples, digest="d")
    gathered = gather_samples(world.stream, world.device_ids)
    expected = group_of(world).encode(gathered)
    assert table.device_id.tolist() == gathered.device_id.tolist()
    assert table.example_id.tolist() == gathered.example_id.tolist()
    np.testing.assert_allclose(table.anchor, expected.anchor, atol=1e-5)
    np.testing.assert_allclose(table.hidden, expected.hidden, atol=1e-5)
    assert table.base_answer.tolist() == expected.base_answer.tolist()
    assert table.static_answer.tolist() == expected.static_answer.tolist()


def test_a_clip_is_decoded_once_for_the_questions_that_lie_side_by_side() -> None:
    world = LiveWorld((40,))
    samples = live_samples(world)
    # The stream comes back to each clip later.
    order = np.argsort(np.arange(80) % 2, kind="stable")
    mixed = replace(samples, **{name: getattr(samples, name)[order] for name in samples.__slots__})
    batches = encoding_batches(mixed)
    assert [len(rows) for rows in batches] == [ENCODE_BATCH, ENCODE_BATCH, 16]
    table = encode_all(group_of(world), mixed)
    assert sorted(world.store.rows_read) == list(range(40))
    straight = encode_all(group_of(world), samples)
    assert table.example_id.tolist() == straight.example_id[order].tolist()
    np.testing.assert_allclose(table.anchor, straight.anchor[order], atol=1e-5)


def test_parts_make_a_table_in_any_order_but_each_once() -> None:
    world = LiveWorld((40,))
    samples, group = live_samples(world), group_of(world)
    parts = [encode_rows(group, samples, rows) for rows in encoding_batches(samples)]
    table = join_parts(samples, reversed(parts), digest="d")
    assert np.array_equal(table.hidden, encode_all(group, samples).hidden)
    with pytest.raises(DataError, match="of 80 samples 32 were not encoded and 0 more than once"):
        join_parts(samples, parts[1:])
    with pytest.raises(DataError, match="of 80 samples 0 were not encoded and 16 more than once"):
        join_parts(samples, [*parts, parts[-1]])
    with pytest.raises(EmptyStreamError, match="none of 2 devices"):
        live_samples(LiveWorld((0, 0)))


def test_a_table_is_kept_mapped_and_damage_is_told(tmp_path) -> None:
    table = replace(TABLE, digest="abc")
    table.save(tmp_path / "t")
    table.save(tmp_path / "t")
    for mmap in (True, False):
        loaded = FeatureTable.load(tmp_path / "t", mmap=mmap)
        assert (len(loaded), loaded.digest) == (30, "abc")
        for name in ("device_id", "example_id", "anchor", "hidden", "base_answer", "static_answer"):
            array = getattr(loaded, name)
            assert type(array) is np.ndarray
            assert array.flags.writeable is not mmap
            assert np.array_equal(array, getattr(table, name))
    with pytest.raises(DataError, match="no feature table in"):
        FeatureTable.load(tmp_path)
    np.save(tmp_path / "t" / "hidden.npy", TABLE.hidden[:-1])
    with pytest.raises(DataError, match="columns of one length"):
        FeatureTable.load(tmp_path / "t")
    np.save(tmp_path / "t" / "hidden.npy", TABLE.anchor)
    with pytest.raises(DataError, match=r"\('float32', 192\).*format.*delete it"):
        FeatureTable.load(tmp_path / "t")
    (tmp_path / "t" / "hidden.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no feature table in"):
        FeatureTable.load(tmp_path / "t")
    with pytest.raises(DataError, match="device_id must not decrease"):
        replace(TABLE, device_id=TABLE.device_id[::-1])


def test_a_table_is_computed_once(tmp_path) -> None:
    calls = []

    def compute() -> FeatureTable:
        calls.append(1)
        return replace(TABLE, digest="abc")

    for _ in range(2):
        assert np.array_equal(kept_features(tmp_path / "kept", "abc", compute).anchor, TABLE.anchor)
    assert len(calls) == 1
    with pytest.raises(DataError, match="expected a feature table of digest 'other', got 'abc'"):
        kept_features(tmp_path / "kept", "other", compute)


def test_the_digest_follows_models_data_and_seed_alone(tmp_path) -> None:
    names = ["p/config.json", "p/model.safetensors", "s/config.json", "s/model.safetensors"]
    names += ["d/test_qa.json", "d/device_map.csv", "d/clips.arrow"]
    for name in [*names, "d/notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def digest(seed: int = 0) -> str:
        return features_digest(personal=tmp_path / "p", static=tmp_path / "s", data=tmp_path / "d", seed=seed)

    first = digest()
    (tmp_path / "d" / "notes.txt").write_text("changed")
    assert digest() == first
    seen = {first, digest(seed=1)}
    for name in names:
        (tmp_path / name).write_text(name.upper())
        seen.add(digest())
    assert len(seen) == 2 + len(names)
    (tmp_path / "p" / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        digest()
