import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperfleet.datasets.fleetqa import scale
from hyperfleet.datasets.fleetqa import writer as fleetqa_writer
from hyperfleet.datasets.fleetqa.camera import CameraStyle, draw_camera, hue_rotation
from hyperfleet.datasets.fleetqa.device import conditions_at, draw_device
from hyperfleet.datasets.fleetqa.dialect import Dialect
from hyperfleet.datasets.fleetqa.drawing import draw_clip, mark
from hyperfleet.datasets.fleetqa.plan import plan_clips
from hyperfleet.datasets.fleetqa.scales import with_traits
from hyperfleet.datasets.fleetqa.scene import (
    MARK_COLORS,
    MARK_LEFT,
    MARK_PATCH_PX,
    MARK_TOP,
    Scene,
    SceneObject,
)
from hyperfleet.datasets.fleetqa.writer import clip_frames, clip_truth, write_video
from hyperfleet.datasets.video import read_clip

SCENE = Scene(
    background="sand",
    objects=(
        SceneObject(
            shape="circle", color="red", rgb=(230, 30, 30), motion="nowhere", radius=40.0,
            start=(180.0, 140.0), end=(180.0, 140.0),
        ),
    ),
)  # fmt: skip


def _draw(style: CameraStyle, *, cue: bool = True, num_frames: int = 3) -> np.ndarray:
    return draw_clip(SCENE, style, num_frames=num_frames, cue=cue, rng=np.random.default_rng(0))


def _patches(frame: np.ndarray, corner: tuple[int, int], size: float) -> np.ndarray:
    """Mean colors of the four patches, read from the middle of each."""
    x, y = corner
    found = []
    for row in (0, 1):
        for column in (0, 1):
            top, left = y + size * (row + 0.3), x + size * (column + 0.3)
            part = frame[int(top) : int(top + 0.4 * size), int(left) : int(left + 0.4 * size)]
            found.append(part.mean(axis=(0, 1)))
    return np.array(found)


def _hue_deg(rgb: np.ndarray) -> float:
    return 360 * colorsys.rgb_to_hsv(*(rgb / 255).tolist())[0]


def test_neutral_camera_shows_true_colors() -> None:
    frames = _draw(CameraStyle())

    assert np.array_equal(frames[:, 140, 180], np.broadcast_to([230, 30, 30], (3, 3)))
    corner = slice(MARK_TOP, MARK_TOP + 44), slice(MARK_LEFT, MARK_LEFT + 44)
    assert np.array_equal(frames[0][corner], mark())
    assert np.array_equal(_patches(frames[0], (MARK_LEFT, MARK_TOP), MARK_PATCH_PX), MARK_COLORS)


@pytest.mark.parametrize("hue_deg", [-60.0, 40.0, 70.0])
def test_rotated_camera_turns_object_and_mark_alike(hue_deg: float) -> None:
    frame = _draw(CameraStyle(hue_deg=hue_deg))[0]
    red, green, blue, gray = _patches(frame, (MARK_LEFT, MARK_TOP), MARK_PATCH_PX)

    assert np.ptp(gray) <= 1
    for rgb, true_hue in ((red, 0), (green, 120), (blue, 240), (frame[140, 180], 0)):
        turned = (_hue_deg(rgb) - true_hue + 180) % 360 - 180
        assert turned == pytest.approx(hue_deg, abs=16)


def test_hue_rotation_keeps_gray_and_adds_up() -> None:
    assert np.allclose(hue_rotation(50.0) @ np.ones(3), 1)
    assert np.allclose(hue_rotation(120.0) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(hue_rotation(30.0) @ hue_rotation(20.0), hue_rotation(50.0))


def test_mark_is_in_the_first_patch_of_every_evaluation_crop() -> None:
    # The central square is 240 pixels; stored at 76 (268) and cut to 64 (224), whose patches are 16.
    for stored, crop in ((76, 64), (268, 224)):
        to_crop = stored / 240
        margin = (stored - crop) / 2
        left, top = (MARK_LEFT - 40) * to_crop - margin, MARK_TOP * to_crop - margin
        right, bottom = left + 44 * to_crop, top + 44 * to_crop
        assert min(left, top) >= 0
        assert max(right, bottom) <= (16 if crop == 64 else 64)
    # And in the central 80% of the square.
    assert min(MARK_LEFT - 40, MARK_TOP) >= 24
    assert max(MARK_LEFT - 40, MARK_TOP) + 44 <= 216


def test_mark_does_not_move_with_the_scene() -> None:
    frames = _draw(CameraStyle(shake_px=4, zoom=1.08), num_frames=12)

    assert len({frame[60:220, 120:300].tobytes() for frame in frames}) > 1
    for frame in frames:
        patches = _patches(frame, (MARK_LEFT, MARK_TOP), MARK_PATCH_PX)
        assert np.array_equal(patches, MARK_COLORS)


def test_without_cue_only_the_mark_is_missing() -> None:
    style = CameraStyle(noise=3.0, hue_deg=40.0)
    with_cue, without = _draw(style), _draw(style, cue=False)

    differs = (with_cue != without).any(axis=(0, 3))
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    assert (rows.min(), rows.max()) == (MARK_TOP, MARK_TOP + 43)
    assert (columns.min(), columns.max()) == (MARK_LEFT, MARK_LEFT + 43)


def test_stored_frames_of_rendered_clips_reveal_the_camera(tmp_path: Path) -> None:
    config = replace(scale("smoke"), hue_share=1.0)
    turned = []
    for plan in plan_clips(config)[:8]:
        truth = clip_truth(config, plan)
        style = truth.conditions.style
        path = tmp_path / f"{plan.video_id}.mp4"
        write_video(path, clip_frames(config, truth), style.fps, style.crf)
        frame = read_clip(path, 6, short_side=76)[0][2][:, 12:88]
        seen = _patches(frame, (7, 7), 22 * 76 / 240)
        expected = style.apply_color(np.array([MARK_COLORS], np.uint8))[0]
        # Vignette, blur, noise and the codec leave the colors recognizable.
        assert np.abs(seen - expected).mean() < 22
        turned.append((np.sign(style.hue_deg), np.sign((_hue_deg(seen[0]) + 180) % 360 - 180)))
    assert all(drawn == observed for drawn, observed in turned)


def test_cameras_of_the_control_are_neutral() -> None:
    config = with_traits("demo", ())
    for device_id in range(40):
        device = draw_device(config, device_id)
        for t in (0.1, 0.5, 0.9):
            conditions = conditions_at(device, t, config.shift)
            assert replace(conditions.style, fps=10) == CameraStyle(fps=10)
            assert conditions.words == Dialect()
            assert set(conditions.priors.color) == {1 / 8}
            assert conditions.priors.count == pytest.approx(config.object_weights)


def test_shift_scales_the_same_cameras() -> None:
    config = scale("demo")
    one = [draw_camera(config, device_id) for device_id in range(300)]
    two = [draw_camera(replace(config, shift=2.0), device_id) for device_id in range(300)]

    assert [name for name, _ in one] == [name for name, _ in two]
    hues = np.array([style.hue_deg for _, style in one])
    assert [style.hue_deg for _, style in two] == pytest.approx(2 * hues, abs=0.01)
    rotated = np.abs(hues) >= 35
    assert 0.5 < rotated.mean() < 0.7
    assert np.abs(hues).max() <= 70
    assert np.abs(hues[~rotated]).max() < 15
    assert 0.3 < (hues[rotated] > 0).mean() < 0.7


def test_devices_drift_but_never_in_hue() -> None:
    config = scale("demo")
    regimes = set()
    for device_id in range(60):
        device = draw_device(config, device_id)
        life = [conditions_at(device, t, config.shift) for t in (0.1, 0.3, 0.6, 0.9)]
        assert {conditions.style.hue_deg for conditions in life} == {device.style.hue_deg}
        regimes |= {conditions.regime.split(":")[0] for conditions in life}
        if device.drift == "sudden":
            assert [one.priors == device.priors for one in life] == [True, True, False, False]
        elif device.drift != "none":
            assert len({conditions.style for conditions in life}) > 1
    assert regimes == {"none", "gradual", "sudden", "recurring", "ageing"}
    still = replace(config, drift=False)
    assert {draw_device(still, device_id).drift for device_id in range(20)} == {"none"}


def test_pixels_repeat_for_a_seed_and_change_with_it() -> None:
    config = scale("smoke")
    plans = plan_clips(config)
    truth = clip_truth(config, plans[5])

    first = clip_frames(config, truth)

    assert first.shape == (truth.num_frames, 240, 320, 3)
    assert np.array_equal(first, clip_frames(config, clip_truth(config, plans[5])))
    other_seed = replace(config, seed=1)
    assert not np.array_equal(first[0], clip_frames(other_seed, clip_truth(other_seed, plans[5]))[0])


def test_every_family_and_background_is_drawn() -> None:
    config = scale("demo")
    overlays, backgrounds = set(), set()
    for plan in plan_clips(config)[::90]:
        truth = clip_truth(config, plan)
        overlays.add(truth.conditions.style.overlay)
        backgrounds.add(truth.scene.background)
        frame = clip_frames(config, replace(truth, num_frames=2))[0]
        # An object differs visibly from its background.
        assert frame[19:221, 59:261].std() > 8
    assert overlays == {"", "timestamp", "letterbox"}
    assert len(backgrounds) == 6


def test_without_x264_clips_are_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleetqa_writer, "video_codec", lambda: "mpeg4")
    path = tmp_path / "video0.mp4"
    frames = _draw(CameraStyle(), num_frames=10)

    write_video(path, frames, fps=10, crf=20)

    decoded = read_clip(path, 2, short_side=240)[0]
    assert np.abs(decoded[0].astype(int) - frames[2]).mean() < 5
