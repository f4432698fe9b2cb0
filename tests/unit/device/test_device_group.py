from dataclasses import fields

import numpy as np
import pytest
import torch

from hyperfleet.device import DeviceGroup, EncodedSamples, Samples, gather_samples
from hyperfleet.device.group import anchor_frames
from hyperfleet.errors import CheckpointError
from hyperfleet.nn import DeviceModel
from tests.worlds.devices_in_memory import ENCODER, World, tiny_models


def group_of(world: World, seed: int = 0) -> DeviceGroup:
    personal, static = tiny_models()
    return DeviceGroup(personal=personal, static=static, store=world.store, seed=seed)


def gathered(world: World, devices: tuple[int, ...] | None = None) -> Samples:
    samples = gather_samples(world.stream, devices or world.device_ids)
    assert samples is not None
    return samples


def encode_all(world: World, devices: tuple[int, ...] | None = None) -> EncodedSamples:
    return group_of(world).encode(gathered(world, devices))


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
    graphs = []
    for model in (personal, static):
        model.trunk.register_forward_hook(lambda _, args, output: graphs.append(output.grad_fn))
    DeviceGroup(personal=personal, static=static, store=world.store, seed=0).encode(gathered(world))
    after = [p for model in (personal, static) for p in model.parameters()]
    assert graphs == [None, None]
    assert all(p.grad is None for p in after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_answers_are_those_of_the_models_called_one_sample_at_a_time():
    world = World((2, 1))
    personal, static = tiny_models()
    encoded, samples = encode_all(world), gathered(world)
    anchor_frame = anchor_frames(samples, 3, seed=0)
    assert len(encoded) == len(samples)
    for i in range(len(samples)):
        frames = world.store.clips[samples.clip_row[i], [1, 3, 5], 4:36, 8:40][None]
        question = samples.token_ids[i : i + 1], samples.token_mask[i : i + 1]
        inputs = [torch.from_numpy(x) for x in (frames, question[0].astype(np.int64), question[1])]
        features = personal.encode(*inputs)
        np.testing.assert_allclose(encoded.anchor[i], features[0, anchor_frame[i]], atol=1e-5)
        hidden = personal.hidden(features.mean(1))
        np.testing.assert_allclose(encoded.hidden[i], hidden[0], atol=1e-5)
        assert encoded.base_answer[i] == personal.head(hidden).argmax()
        assert encoded.static_answer[i] == static.head(static.hidden(static.encode(*inputs).mean(1))).argmax()


def test_the_anchor_frame_depends_only_on_seed_device_and_question():
    world = World((20, 14))
    together = anchor_frames(gathered(world), 3, seed=0)
    alone = anchor_frames(gathered(world, (1,)), 3, seed=0)
    assert together[-len(alone) :].tolist() == alone.tolist()
    assert np.bincount(together, minlength=3).min() > 10
    assert (anchor_frames(gathered(world), 3, seed=1) != together).any()


def test_empty_streams_are_left_out():
    world = World((2, 0, 1))
    samples = gathered(world)
    assert samples.device_id.tolist() == [0, 0, 0, 0, 2, 2]
    assert samples.example_id.tolist() == [1000, 1001, 1002, 1003, 1004, 1005]
    assert gather_samples(world.stream, (1,)) is None
    assert [len(batch) for batch in samples.batches(4)] == [4, 2]


def test_models_of_two_data_sets_are_refused():
    with pytest.raises(CheckpointError, match=r"'classes': 7.*'classes': 8"):
        DeviceGroup(
            personal=tiny_models()[0], static=DeviceModel(ENCODER, 8), store=World((1,)).store, seed=0
        )
