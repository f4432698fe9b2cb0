from dataclasses import fields

import numpy as np
import pytest
import torch

from hyperfleet.device import DeviceGroup, EncodedSamples, Samples, gather_samples
from hyperfleet.errors import CheckpointError, ConfigError, HeadLayoutError
from hyperfleet.messages import FEATURE_BYTES
from hyperfleet.nn import DeviceModel, apply_heads
from tests.unit.device.fleet_world import (
    ENCODER,
    LAYOUT,
    World,
    generate,
    reply_of,
    tiny_models,
    whole_heads,
)


def group_of(world: World, seed: int = 0) -> DeviceGroup:
    personal, static = tiny_models()
    return DeviceGroup(personal=personal, static=static, store=world.store, seed=seed)


def encode_all(world: World, seed: int = 0, devices: tuple[int, ...] | None = None) -> EncodedSamples:
    samples, _ = gather_samples(world.stream, devices or world.device_ids)
    return group_of(world, seed).encode(samples)


def test_no_label_can_reach_a_device():
    assert {f.name for f in fields(Samples)} == {
        "device_id",
        "example_id",
        "clip_row",
        "token_ids",
        "token_mask",
    }
    assert not {name for f in fields(EncodedSamples) if "label" in (name := f.name)}


def test_a_device_reads_its_own_clips_and_each_clip_once():
    world = World((2, 1, 3))
    encode_all(world, devices=(2,))
    assert sorted(world.store.rows_read) == list(world.own_rows(2))


def test_no_gradient_is_recorded_and_no_parameter_changes():
    world = World((2, 1))
    personal, static = (model.requires_grad_(True) for model in tiny_models())
    before = [p.clone() for model in (personal, static) for p in model.parameters()]
    samples, _ = gather_samples(world.stream, world.device_ids)
    graphs = []
    for model in (personal, static):
        model.trunk.register_forward_hook(lambda _, args, output: graphs.append(output.grad_fn))
    encoded = DeviceGroup(personal=personal, static=static, store=world.store, seed=0).encode(samples)
    encoded.answer(0, reply_of(whole_heads(np.ones((1, LAYOUT.num_params), "f4"))))
    after = [p for model in (personal, static) for p in model.parameters()]
    assert graphs == [None, None]
    assert all(p.grad is None for p in after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_answers_are_those_of_the_models_called_one_sample_at_a_time():
    world = World((2, 1))
    personal, static = tiny_models()
    encoded = encode_all(world)
    heads = generate(encoded.anchor).full()
    for i in range(len(encoded)):
        frames = world.store.clips[encoded.samples.clip_row[i], [1, 3, 5], 4:36, 8:40][None]
        question = encoded.samples.token_ids[i : i + 1], encoded.samples.token_mask[i : i + 1]
        inputs = [torch.from_numpy(x) for x in (frames, question[0].astype(np.int64), question[1])]
        features = personal.encode(*inputs)
        np.testing.assert_allclose(encoded.anchor[i], features[0, encoded.anchor_frame[i]], atol=1e-5)
        hidden = personal.hidden(features.mean(1))
        assert encoded.base_answer[i] == personal.head(hidden).argmax()
        assert encoded.static_answer[i] == static.head(static.hidden(static.encode(*inputs).mean(1))).argmax()
        flat = heads[i : i + 1]
        reply = reply_of(whole_heads(flat.numpy()))
        assert encoded.answer(i, reply) == apply_heads(flat, hidden[:, None], LAYOUT).argmax()


def test_one_feature_of_768_bytes_is_all_a_device_asks_with():
    encoded = encode_all(World((1,)))
    body = encoded.request(1).to_bytes()
    assert len(body) == FEATURE_BYTES
    assert body == encoded.anchor[1].tobytes()


def test_the_anchor_frame_depends_on_seed_device_and_question_alone():
    together, alone = encode_all(World((20, 14))), encode_all(World((20, 14)), devices=(1,))
    assert together.anchor_frame[-len(alone) :].tolist() == alone.anchor_frame.tolist()
    assert np.bincount(together.anchor_frame, minlength=3).min() > 10
    assert (encode_all(World((20, 14)), seed=1).anchor_frame != together.anchor_frame).any()


def test_empty_streams_are_told_and_long_ones_cut():
    world = World((2, 0, 1))
    samples, empty = gather_samples(world.stream, (0, 1, 2), samples_per_device=3)
    assert samples.device_id.tolist() == [0, 0, 0, 2, 2]
    assert empty == (1,)
    assert gather_samples(world.stream, (1,)) == (None, (1,))
    assert [len(batch) for batch in samples.batches(2)] == [2, 2, 1]
    with pytest.raises(ConfigError, match="samples_per_device must be >= 1"):
        gather_samples(world.stream, (0,), samples_per_device=0)


def test_a_head_without_an_answer_and_models_of_two_data_sets_are_refused():
    encoded = encode_all(World((1,)))
    flat = np.zeros((1, LAYOUT.num_params), "f4")
    flat[:, LAYOUT.num_weights :] = np.nan
    reply = reply_of(whole_heads(flat))
    with pytest.raises(HeadLayoutError, match="model 3 gives 7 scores of 7 that are NaN"):
        encoded.answer(0, reply)
    with pytest.raises(CheckpointError, match=r"'classes': 7.*'classes': 8"):
        DeviceGroup(
            personal=tiny_models()[0], static=DeviceModel(ENCODER, 8), store=World((1,)).store, seed=0
        )
