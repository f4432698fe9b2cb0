"""Choice of the stored frames of a clip, and of the crop that a model sees."""

import numpy as np
from jaxtyping import Int, UInt8

from hyperfleet.errors import ConfigError


def _segments(num_stored: int, num_frames: int) -> Int[np.ndarray, " bound"]:
    if num_frames < 1 or num_stored < num_frames:
        raise ConfigError(
            f"a clip of {num_stored} stored frames cannot be cut into {num_frames} segments; "
            "render the data set with more stored frames or use fewer frames per clip"
        )
    return np.linspace(0, num_stored, num_frames + 1).round().astype(np.int64)


def inference_frames(num_stored: int, num_frames: int) -> Int[np.ndarray, " frame"]:
    """Return the middle stored frame of each of `num_frames` equal segments."""
    bounds = _segments(num_stored, num_frames)
    middle: np.ndarray = (bounds[:-1] + bounds[1:]) // 2
    return middle


def training_frames(
    rng: np.random.Generator, num_clips: int, num_stored: int, num_frames: int
) -> Int[np.ndarray, "clip frame"]:
    """Draw one stored frame per segment for each clip."""
    bounds = _segments(num_stored, num_frames)
    drawn: np.ndarray = rng.integers(bounds[:-1], bounds[1:], size=(num_clips, num_frames))
    return drawn


def central_crop(
    frames: UInt8[np.ndarray, "clip frame height width 3"], size: int
) -> UInt8[np.ndarray, "clip frame size size 3"]:
    """Cut the central square of `size` pixels out of every frame."""
    top, left = (frames.shape[2] - size) // 2, (frames.shape[3] - size) // 2
    if top < 0 or left < 0:
        raise _too_small(frames.shape[2:4], size)
    return frames[:, :, top : top + size, left : left + size]


def random_corners(
    rng: np.random.Generator, num_clips: int, stored_size: tuple[int, ...], size: int
) -> Int[np.ndarray, "clip 2"]:
    """Draw the top left corner of a square of `size` pixels for each clip, inside frames of `stored_size`."""
    if min(stored_size) < size:
        raise _too_small(stored_size, size)
    return np.stack([rng.integers(0, side - size + 1, num_clips) for side in stored_size], axis=1)


def crop_at(
    frames: UInt8[np.ndarray, "clip frame height width 3"], corners: Int[np.ndarray, "clip 2"], size: int
) -> UInt8[np.ndarray, "clip frame size size 3"]:
    """Cut a square of `size` pixels out of every frame, at one corner (row, column) per clip."""
    rows, columns = (corners[:, axis, None] + np.arange(size) for axis in (0, 1))
    clip = np.arange(len(frames))[:, None, None]
    # Advanced indices around the frame axis put it last; move it back.
    cut: np.ndarray = frames[clip, :, rows[:, :, None], columns[:, None, :]]
    return cut.transpose(0, 3, 1, 2, 4)


def _too_small(stored_size: tuple[int, ...], size: int) -> ConfigError:
    return ConfigError(
        f"frames of {stored_size[0]} x {stored_size[1]} pixels are stored, the encoder needs {size}; "
        "render the data set with a larger store_short_side or use a smaller encoder"
    )
