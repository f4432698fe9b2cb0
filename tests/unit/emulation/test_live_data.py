from dataclasses import fields

import numpy as np
import pytest

from hyperfleet.datasets import QuestionStream, Split
from hyperfleet.emulation.live_data import LiveData
from hyperfleet.errors import EmptyStreamError
from tests.worlds.devices_in_memory import World


def split(device_id: list[int]) -> Split:
    n = len(device_id)
    return Split(
        name="test",
        task="open-ended-qa",
        example_id=np.arange(100, 100 + n),
        clip_row=np.arange(n, dtype=np.int32),
        token_ids=np.arange(4 * n, dtype=np.int32).reshape(n, 4),
        token_mask=np.ones((n, 4), bool),
        label=np.full(n, 424242),
        category=np.full(n, 424242),
        device_id=np.array(device_id, np.int32),
        num_skipped=3,
    )


def test_each_device_gets_its_own_questions_in_order_and_no_answers():
    whole = split([2, 0, 2, 5, 0, 2])
    live = LiveData(World((1,)).store, whole, dict.fromkeys(range(6), True))
    for device_id in (0, 2, 5):
        own, expected = live.stream(device_id), whole.stream(device_id)
        assert isinstance(own, QuestionStream)
        for field in fields(expected):
            assert np.array_equal(getattr(own, field.name), getattr(expected, field.name))
    assert live.num_skipped == 3
    kept = [value for value in vars(live).values() if isinstance(value, np.ndarray)]
    assert not any((value == 424242).any() for value in kept)


@pytest.mark.parametrize("device_id", [1, 99])
def test_a_device_without_questions_has_an_empty_stream(device_id):
    live = LiveData(World((1,)).store, split([0, 2]), {0: True, 1: True, 2: False})
    with pytest.raises(EmptyStreamError, match=f"device {device_id} has no live question"):
        live.stream(device_id)
