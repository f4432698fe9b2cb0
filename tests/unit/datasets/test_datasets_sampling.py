import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.datasets.sampling import (
    central_crop,
    crop_at,
    inference_frames,
    random_corners,
    training_frames,
)
from hyperfleet.errors import ConfigError


@given(num_frames=st.integers(1, 6), per_segment=st.integers(1, 4), seed=st.integers(0, 99))
def test_frames_come_from_their_segments_in_order(num_frames: int, per_segment: int, seed: int) -> None:
    num_stored = num_frames * per_segment
    drawn = training_frames(np.random.default_rng(seed), 20, num_stored, num_frames)
    assert (drawn // per_segment == np.arange(num_frames)).all()
    assert (inference_frames(num_stored, num_frames) // per_segment == np.arange(num_frames)).all()


def test_training_sees_every_stored_frame() -> None:
    drawn = training_frames(np.random.default_rng(0), 200, 6, 3)
    assert set(drawn.flatten().tolist()) == set(range(6))


def test_more_frames_than_stored_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 stored frames cannot be cut into 3"):
        inference_frames(2, 3)


@given(height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0, 99))
def test_crops_equal_slices(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (3, 2, height, width, 3), dtype=np.uint8)
    corners = random_corners(rng, 3, (height, width), 5)
    cut = crop_at(frames, corners, 5)
    for clip, (top, left) in enumerate(corners):
        assert np.array_equal(cut[clip], frames[clip, :, top : top + 5, left : left + 5])
    top, left = (height - 5) // 2, (width - 5) // 2
    assert np.array_equal(central_crop(frames, 5), frames[:, :, top : top + 5, left : left + 5])


def test_frames_smaller_than_the_encoder_wants_are_refused() -> None:
    with pytest.raises(ConfigError, match="store_short_side"):
        central_crop(np.zeros((1, 1, 4, 4, 3), np.uint8), 5)
    with pytest.raises(ConfigError, match="store_short_side"):
        random_corners(np.random.default_rng(0), 1, (4, 9), 5)
