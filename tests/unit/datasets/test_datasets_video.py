from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from hyperfleet.datasets import video
from hyperfleet.datasets.video import read_clip, spread
from hyperfleet.errors import VideoDecodeError

WriteVideo = Callable[..., Path]
FrameNumbers = Callable[[np.ndarray], list[int]]


def test_spread_takes_the_middle_of_equal_parts() -> None:
    assert spread(30, 6).tolist() == [2, 7, 12, 17, 22, 27]
    assert spread(2, 6).tolist() == [0, 0, 0, 1, 1, 1]
    assert spread(1, 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("plain.mp4", "libx264", {}),
        ("open_gop.mp4", "libx264", {"x264-params": "open-gop=1:keyint=8:bframes=3"}),
        ("no_frame_count.mkv", "libx264", {}),
        ("b_frames.avi", "mpeg4", {"bf": "2"}),
        ("-dash:colon.mp4", "mpeg4", {}),
    ],
)
def test_exact_frames_are_decoded(
    write_video: WriteVideo, frame_numbers: FrameNumbers, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(name, 30, codec=codec, options=options)

    frames, num_source_frames = read_clip(path, 6, short_side=24)

    assert num_source_frames == 30
    assert frames.shape == (6, 24, 32, 3)
    assert frame_numbers(frames) == [2, 7, 12, 17, 22, 27]


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_short_clips_repeat_frames(
    write_video: WriteVideo, frame_numbers: FrameNumbers, num_frames: int
) -> None:
    frames, _ = read_clip(write_video("short.mp4", num_frames), 6, short_side=24)

    assert frame_numbers(frames) == spread(num_frames, 6).tolist()
    assert frame_numbers(frames)[-1] == num_frames - 1


def test_gif_without_header_count_is_read(write_video: WriteVideo) -> None:
    path = write_video("clip.gif", 8, codec="gif", pix_fmt="rgb8")

    frames, num_source_frames = read_clip(path, 3, short_side=24)

    assert num_source_frames == 8
    assert frames.shape == (3, 24, 32, 3)


@pytest.mark.parametrize(
    ("matrix", "white_corner", "shape"),
    [
        ((0, 1, -1, 0), (0, -1), (32, 24)),
        ((-1, 0, 0, -1), (-1, -1), (24, 32)),
        ((0, -1, 1, 0), (-1, 0), (32, 24)),
    ],
    ids=["clockwise", "upside_down", "counterclockwise"],
)
def test_rotation_in_the_file_is_applied(
    write_video: WriteVideo,
    matrix: tuple[int, int, int, int],
    white_corner: tuple[int, int],
    shape: tuple[int, int],
) -> None:
    path = write_video("rotated.mp4", 3)
    _set_rotation(path, matrix)

    picture = read_clip(path, 1, short_side=24)[0][0]

    assert picture.shape[:2] == shape
    corners = {(y, x): int(picture[y, x].min()) for y in (0, -1) for x in (0, -1)}
    assert [corner for corner, level in corners.items() if level > 200] == [white_corner]


def test_file_cut_short_says_how_far_decoding_came(write_video: WriteVideo) -> None:
    path = write_video(
        "cut.mp4", 30, options={"g": "5", "bf": "0"}, container_options={"movflags": "faststart"}
    )
    whole = path.read_bytes()
    start = whole.index(b"mdat")
    path.write_bytes(whole[: start + (len(whole) - start) * 3 // 4])

    with pytest.raises(VideoDecodeError, match=r"broken video data.*\(1\d frames decoded\)"):
        read_clip(path, 3, short_side=24)


def test_header_that_promises_too_many_frames(write_video: WriteVideo, frame_numbers: FrameNumbers) -> None:
    path = write_video("liar.avi", 12, codec="mpeg4")
    data = bytearray(path.read_bytes())
    length_at = data.index(b"strh") + 8 + 32
    assert data[length_at : length_at + 4] == (12).to_bytes(4, "little")
    data[length_at : length_at + 4] = (50).to_bytes(4, "little")
    path.write_bytes(data)

    frames, num_source_frames = read_clip(path, 3, short_side=24)

    assert num_source_frames == 12
    assert frame_numbers(frames) == [2, 6, 10]


def test_files_that_cannot_be_decoded_say_why(write_video: WriteVideo, tmp_path: Path) -> None:
    empty, noise = tmp_path / "empty.mp4", tmp_path / "noise.mp4"
    empty.touch()
    noise.write_bytes(np.random.default_rng(0).bytes(4000))
    cut = write_video("cut.mp4", 20)
    cut.write_bytes(cut.read_bytes()[:-500])
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
    cases = {
        tmp_path / "nowhere.mp4": "no such file",
        tmp_path: "no such file",
        empty: "not a video file",
        noise: "not a video file",
        cut: "not a video file",
        sound: "no video stream",
    }

    for path, reason in cases.items():
        with pytest.raises(VideoDecodeError, match=reason) as caught:
            read_clip(path, 3, short_side=24)
        assert str(path) in str(caught.value)


def test_broken_packets_are_an_error(write_video: WriteVideo) -> None:
    path = write_video("broken.mp4", 30, options={"g": "1"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 800 : start + 1400] = b"\xff" * 600
    path.write_bytes(data)

    with pytest.raises(VideoDecodeError, match="Invalid data found"):
        read_clip(path, 3, short_side=24)


def test_too_large_pictures_are_refused(write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video("large.mp4", 2)
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)

    with pytest.raises(VideoDecodeError, match="64x48 pixels exceed the limit"):
        read_clip(path, 1, short_side=24)


def _set_rotation(path: Path, matrix: tuple[int, int, int, int]) -> None:
    # The display matrix is 40 bytes into the track header: 9 numbers of 16.16 bits (last column 2.30).
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
