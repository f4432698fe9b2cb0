"""Fixtures: a small rendered data set, shared by all tests here, and a writer of odd video files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from hyperfleet.datasets.fleetqa import FleetQAConfig, scale
from pipelines.render_data import render

WriteVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def small_config() -> FleetQAConfig:
    return replace(scale("smoke"), num_seen_devices=6, num_held_out_devices=2, seed=7)


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory, small_config: FleetQAConfig) -> Path:
    return render(small_config, tmp_path_factory.mktemp("fleetqa"), workers=0, show_progress=False)


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    """Write frames whose gray level is 8 times their number, in any container and codec."""

    def write(
        name: str,
        num_frames: int,
        *,
        codec: str = "libx264",
        size: tuple[int, int] = (64, 48),
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        pix_fmt: str = "yuv420p",
    ) -> Path:
        path = tmp_path / name
        with av.open(f"file:{path}", "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            stream.options = options or {}
            stream.bit_rate = 2_000_000
            stream.codec_context.thread_count = 1
            for number in range(num_frames):
                picture = np.full((size[1], size[0], 3), 8 * number, np.uint8)
                # White where the top left corner of the picture is.
                picture[: size[1] // 2, : size[0] // 2] = 250
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def frame_numbers() -> Callable[[np.ndarray], list[int]]:
    """Read the frame numbers that `write_video` drew from decoded frames."""

    def read(frames: np.ndarray) -> list[int]:
        bottom_right = frames[:, -8:, -8:].astype(float).mean(axis=(1, 2, 3))
        return [round(level / 8) for level in bottom_right.tolist()]

    return read
