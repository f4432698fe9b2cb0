import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hyperfleet.datasets.clip_store import ClipStore, StoredClip, decode_clip, encode_frames, write_clips
from hyperfleet.datasets.sampling import inference_frames, training_frames
from hyperfleet.datasets.video import read_clip
from hyperfleet.errors import ConfigError, DataError
from pipelines.render_data import build_clip_store

pytestmark = pytest.mark.heavy

WriteVideo = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """300 clips, more than one batch; the gray level of frame j of clip i is (7 i + 20 j) mod 256."""

    def clip(number: int) -> StoredClip:
        levels = (7 * number + 20 * np.arange(6)) % 256
        frames = np.broadcast_to(levels[:, None, None, None], (6, 16, 16, 3)).astype(np.uint8)
        return StoredClip(video_id=f"video{number}", num_frames=25, frames=encode_frames(frames, 95))

    path = tmp_path / "clips.arrow"
    write_clips(path, map(clip, range(300)), frame_side=16, num_stored_frames=6)
    return ClipStore(path)


def test_any_frame_of_any_clip_comes_back(store: ClipStore) -> None:
    rows = np.array([299, 0, 255, 256, 256])
    index = np.array([[0, 5], [1, 1], [5, 0], [2, 3], [4, 5]])

    frames = store.frames(rows, index)

    assert frames.shape == (5, 2, 16, 16, 3)
    expected = (7 * rows[:, None] + 20 * index) % 256
    assert np.abs(frames.mean(axis=(2, 3, 4)) - expected).max() < 1.5
    assert store.row("video256") == 256
    assert len(store) == 300
    assert store.num_stored_frames == 6


def test_store_is_reopened_by_path_when_pickled(store: ClipStore) -> None:
    assert len(pickle.dumps(store)) < 500
    copy = pickle.loads(pickle.dumps(store))
    rows, index = np.arange(20), np.zeros((20, 1), np.int64)
    assert np.array_equal(copy.frames(rows, index), store.frames(rows, index))


def test_frames_outside_the_store_are_refused(store: ClipStore) -> None:
    with pytest.raises(DataError, match="rows 0 to 299"):
        store.frames(np.array([300]), np.array([[0]]))
    with pytest.raises(DataError, match="frames 0 to 5"):
        store.frames(np.array([0]), np.array([[6]]))
    with pytest.raises(DataError, match="no pictures of 'video300'"):
        store.row("video300")


def test_stored_pictures_match_the_video_and_are_small(small_root: Path) -> None:
    store = ClipStore(small_root / "clips.arrow")
    rows = np.arange(len(store))

    frames = store.frames(rows, np.tile(np.arange(6), (len(store), 1)))
    decoded, _ = read_clip(small_root / "videos" / "all" / "video3.mp4", 6, short_side=76)

    # 101x76 pixels, of which the store keeps the central square.
    error = np.abs(frames[store.row("video3")].astype(int) - decoded[:, :, 12:88].astype(int))
    assert error.mean() < 3
    assert store.path.stat().st_size / len(store) < 60_000


def test_broken_videos_are_skipped_with_their_reason(write_video: WriteVideo, tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no video at all")
    videos = [("video0", noise), ("video1", write_video("good.mp4", 9)), ("video2", tmp_path / "nowhere.mp4")]

    store = build_clip_store(
        tmp_path / "clips.arrow", videos, num_stored_frames=6, short_side=24, quality=92, workers=0
    )

    assert store.video_ids == ("video1",)
    assert store.num_source_frames.tolist() == [9]
    assert sorted(store.skipped) == ["video0", "video2"]
    assert "not a video file" in store.skipped["video0"]
    assert "no such file" in store.skipped["video2"]
    with pytest.raises(DataError, match="no such file"):
        store.row("video2")


def test_skipped_videos_may_fill_a_batch_of_their_own(tmp_path: Path) -> None:
    picture = encode_frames(np.zeros((1, 16, 16, 3), np.uint8), 95) * 6
    clips = [StoredClip(video_id=f"video{number}", num_frames=9, frames=picture) for number in range(256)]
    skipped = StoredClip(video_id="video256", num_frames=0, frames=(), skip_reason="broken")
    for rows, num_skipped in ((clips, 0), ([*clips, skipped], 1)):
        write_clips(tmp_path / "clips.arrow", rows, frame_side=16, num_stored_frames=6)
        store = ClipStore(tmp_path / "clips.arrow")
        assert len(store) == 256
        assert len(store.skipped) == num_skipped
        assert store.frames(np.array([255]), np.array([[5]])).max() < 3


def test_a_store_of_nothing_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    videos = [("video0", tmp_path / "nowhere.mp4")]
    with pytest.raises(DataError, match=r"none of 1 videos could be decoded.*no such file"):
        build_clip_store(
            tmp_path / "clips.arrow", videos, num_stored_frames=6, short_side=24, quality=92, workers=0
        )
    with pytest.raises(DataError, match="no videos were given"):
        build_clip_store(
            tmp_path / "clips.arrow", [], num_stored_frames=6, short_side=24, quality=92, workers=0
        )
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_store_leaves_the_old_one(store: ClipStore) -> None:
    def interrupted() -> object:
        yield StoredClip(video_id="video0", num_frames=1, frames=(b"",) * 6)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clips(store.path, interrupted(), frame_side=16, num_stored_frames=6)
    assert len(ClipStore(store.path)) == 300


def test_files_that_are_no_store_are_refused(tmp_path: Path) -> None:
    noise, table = tmp_path / "noise.arrow", tmp_path / "table.arrow"
    noise.write_bytes(b"not arrow")
    with pa.OSFile(str(table), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", pa.int8())])):
        pass

    with pytest.raises(DataError, match="hyperfleet data render"):
        ClipStore(tmp_path / "nowhere.arrow")
    with pytest.raises(DataError, match="is not an Arrow file"):
        ClipStore(noise)
    with pytest.raises(DataError, match="got 'no format mark'"):
        ClipStore(table)


def test_low_jpeg_quality_is_refused(tmp_path: Path, write_video: WriteVideo) -> None:
    with pytest.raises(ConfigError, match=r"90\.\.100, got 60"):
        decode_clip("video0", write_video("good.mp4", 3), num_stored_frames=6, short_side=24, quality=60)


def test_frames_of_segments() -> None:
    assert inference_frames(6, 3).tolist() == [1, 3, 5]
    drawn = training_frames(np.random.default_rng(0), 200, 6, 3)
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ConfigError, match="cannot be cut into 7 segments"):
        inference_frames(6, 7)
