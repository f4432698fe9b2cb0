"""Renderer of a clip's frames from a scene and a camera, before encoding.

A camera changes the color of each pixel independently, so the change is applied to colors before drawing,
not to every pixel of every frame; blur, vignette, noise and overlay follow. The maker's mark is on the
lens: it does not move with the scene, but the camera changes its colors like all others.
"""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from hyperfleet.datasets.fleetqa.backgrounds import draw_background
from hyperfleet.datasets.fleetqa.camera import MAX_SHAKE_PX, CameraStyle
from hyperfleet.datasets.fleetqa.scene import (
    HEIGHT,
    MARK_COLORS,
    MARK_LEFT,
    MARK_PATCH_PX,
    MARK_TOP,
    WIDTH,
    Scene,
    SceneObject,
)

# OpenCV draws smooth edges in sixteenths of a pixel.
_SUBPIXEL_BITS = 4
_LETTER_FONT = cv2.FONT_HERSHEY_SIMPLEX

Frames = UInt8[np.ndarray, "frame 240 320 3"]
Picture = UInt8[np.ndarray, "height width 3"]


def draw_clip(
    scene: Scene, style: CameraStyle, *, num_frames: int, cue: bool, rng: np.random.Generator
) -> Frames:
    """Draw the frames of a clip as the camera records them; `rng` gives texture, shake and noise."""
    frames = _draw_scene(scene, style, num_frames, rng)
    if cue:
        size = 2 * MARK_PATCH_PX
        frames[:, MARK_TOP : MARK_TOP + size, MARK_LEFT : MARK_LEFT + size] = style.apply_color(mark())
    _degrade(frames, style, rng)
    return frames


def mark() -> UInt8[np.ndarray, "44 44 3"]:
    """Draw the maker's mark in true colors: red and green above blue and gray."""
    patches = np.array(MARK_COLORS, np.uint8).reshape(2, 2, 3)
    return patches.repeat(MARK_PATCH_PX, axis=0).repeat(MARK_PATCH_PX, axis=1)


def _star() -> Float64[np.ndarray, "10 2"]:
    angles = -np.pi / 2 + np.pi / 5 * np.arange(10)
    reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
    return np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)


def _cross() -> Float64[np.ndarray, "12 2"]:
    arm = 0.34
    quarter = np.array([[arm, -arm], [1.0, -arm], [1.0, arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k).T for k in range(4)])


_OUTLINES = {
    "square": np.array([[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]]),
    "triangle": np.array([[0.0, -1.0], [0.95, 0.75], [-0.95, 0.75]]),
    "star": _star(),
    "cross": _cross(),
}


def _draw_scene(scene: Scene, style: CameraStyle, num_frames: int, rng: np.random.Generator) -> Frames:
    pad = MAX_SHAKE_PX
    background = _zoomed(style.apply_color(draw_background(scene.background, rng)), style.zoom)
    wide = cv2.copyMakeBorder(background, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    shake = _shake(style, num_frames, rng)
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for frame, (dx, dy) in zip(frames, shake.tolist(), strict=True):
        frame[:] = wide[pad - dy : pad - dy + HEIGHT, pad - dx : pad - dx + WIDTH]
    times = np.linspace(0, 1, num_frames)
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    for thing in scene.objects:
        centers = middle + style.zoom * (thing.positions(times) - middle) + shake
        rgb = _recorded(style, thing.rgb)
        for index in np.flatnonzero(times >= thing.appears).tolist():
            _draw_object(frames[index], thing, rgb, centers[index], style.zoom * thing.radius)
    return frames


def _zoomed(picture: Picture, zoom: float) -> Picture:
    if zoom == 1:
        return picture
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, zoom)
    return np.asarray(cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT)), np.uint8)


def _shake(style: CameraStyle, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    # Slow drift of the hand in whole pixels; always drawn, so that noise is the same without it.
    steps = rng.normal(0, 0.5, (num_frames, 2)).cumsum(axis=0)
    return np.clip(np.round(steps), -style.shake_px, style.shake_px).astype(np.int64)


def _recorded(style: CameraStyle, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = style.apply_color(np.array([[rgb]], np.uint8))[0, 0].tolist()
    return red, green, blue


def _draw_object(
    frame: Picture,
    thing: SceneObject,
    rgb: tuple[int, int, int],
    center: Float64[np.ndarray, "2"],
    radius: float,
) -> None:
    scale = 1 << _SUBPIXEL_BITS
    middle = (round(center[0] * scale), round(center[1] * scale))
    if thing.shape == "circle":
        cv2.circle(frame, middle, round(radius * scale), rgb, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    elif thing.shape == "ring":
        width = round(0.42 * radius)
        cv2.circle(
            frame, middle, round((radius - width / 2) * scale), rgb, width, cv2.LINE_AA, _SUBPIXEL_BITS
        )
    else:
        corners = np.round((center + radius * _OUTLINES[thing.shape]) * scale).astype(np.int32)
        cv2.fillPoly(frame, [corners], rgb, cv2.LINE_AA, _SUBPIXEL_BITS)
    if thing.letter:
        _draw_letter(frame, thing.letter.upper(), center, radius)


def _draw_letter(frame: Picture, letter: str, center: Float64[np.ndarray, "2"], radius: float) -> None:
    scale = radius / 32
    (width, height), _ = cv2.getTextSize(letter, _LETTER_FONT, scale, 2)
    corner = (round(center[0] - width / 2), round(center[1] + height / 2))
    for color, thickness in (((16, 16, 16), 5), ((250, 250, 250), 2)):
        cv2.putText(frame, letter, corner, _LETTER_FONT, scale, color, thickness, cv2.LINE_AA)


def _degrade(frames: Frames, style: CameraStyle, rng: np.random.Generator) -> None:
    shade = _vignette(style.vignette)
    for frame in frames:
        if style.blur_px > 0.2:
            cv2.GaussianBlur(frame, (0, 0), style.blur_px, dst=frame)
        if style.vignette > 0:
            cv2.multiply(frame, shade, dst=frame, scale=1 / 255)
    if style.noise > 0:
        _add_noise(frames, style.noise, rng)
    _draw_overlay(frames, style)


@cache
def _corner_distance() -> Float64[np.ndarray, "240 320 1"]:
    y, x = np.linspace(-1, 1, HEIGHT)[:, None], np.linspace(-1, 1, WIDTH)[None, :]
    return ((x**2 + y**2) / 2)[..., None]


def _vignette(loss: float) -> Picture:
    return np.repeat(np.round(255 * (1 - loss * _corner_distance())).astype(np.uint8), 3, axis=2)


def _add_noise(frames: Frames, noise: float, rng: np.random.Generator) -> None:
    # One tile of noise, cropped at a new place for each frame. Adding its positive and subtracting its
    # negative part stays in bytes, four times as fast as adding signed numbers.
    spare = 32
    tile = rng.standard_normal((HEIGHT + spare, WIDTH + spare), np.float32)
    tile *= noise
    more = np.repeat(np.clip(np.round(tile), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    less = np.repeat(np.clip(np.round(-tile), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    corners = rng.integers(0, spare, (len(frames), 2)).tolist()
    for frame, (y, x) in zip(frames, corners, strict=True):
        cv2.add(frame, more[y : y + HEIGHT, x : x + WIDTH], dst=frame)
        cv2.subtract(frame, less[y : y + HEIGHT, x : x + WIDTH], dst=frame)


def _draw_overlay(frames: Frames, style: CameraStyle) -> None:
    if style.overlay == "letterbox":
        frames[:, :14] = 0
        frames[:, -14:] = 0
    elif style.overlay == "timestamp":
        # Outside the central square, so no crop ever shows it.
        for index, frame in enumerate(frames):
            text = f"{index / style.fps:4.1f}"
            cv2.putText(frame, text, (2, HEIGHT - 6), _LETTER_FONT, 0.35, (230, 230, 230), 1, cv2.LINE_AA)
