"""Backgrounds, which differ in texture and brightness more than in color.

Their colors are muted on purpose: a bright green lawn would reveal the camera as the maker's mark does, and
the ablation without the mark would show nothing.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from hyperfleet.datasets.fleetqa.scene import HEIGHT, WIDTH

Picture = UInt8[np.ndarray, "240 320 3"]


def draw_background(name: str, rng: np.random.Generator) -> Picture:
    """Draw a background (240, 320, 3) in true colors, with a slightly varying brightness."""
    picture = _PAINTERS[name](rng)
    return np.asarray(cv2.convertScaleAbs(picture, alpha=float(rng.uniform(0.9, 1.1))), np.uint8)


def _plain(rgb: tuple[int, int, int]) -> Picture:
    return np.full((HEIGHT, WIDTH, 3), rgb, np.uint8)


def _sky(rng: np.random.Generator) -> Picture:
    down = np.linspace(0, 1, HEIGHT)[:, None, None]
    shade = (1 - down) * np.array([168, 184, 200]) + down * np.array([206, 212, 218])
    picture = np.ascontiguousarray(np.broadcast_to(shade, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    for x, y in rng.integers((30, 20), (WIDTH - 30, HEIGHT - 20), (5, 2)).tolist():
        for offset in (-22, 0, 22):
            cv2.ellipse(picture, (x + offset, y), (26, 11), 0, 0, 360, (240, 240, 242), -1, cv2.LINE_AA)
    return picture


def _grass(rng: np.random.Generator) -> Picture:
    picture = _plain((98, 116, 88))
    feet = rng.integers((0, 0), (WIDTH, HEIGHT + 20), (220, 2))
    tips = feet + np.stack([rng.integers(-6, 7, 220), rng.integers(-34, -20, 220)], axis=1)
    for shade, part in (((74, 92, 66), slice(0, 110)), ((124, 142, 110), slice(110, 220))):
        cv2.polylines(picture, list(np.stack([feet, tips], axis=1)[part].astype(np.int32)), False, shade, 4)
    return picture


def _sand(rng: np.random.Generator) -> Picture:
    picture = _plain((206, 192, 166))
    for x, y in rng.integers(0, (WIDTH, HEIGHT), (160, 2)).tolist():
        cv2.circle(picture, (x, y), 3, (168, 154, 130), -1)
    return picture


def _brick(rng: np.random.Generator) -> Picture:
    picture = _plain((132, 104, 94))
    joint = (190, 184, 178)
    top, left = rng.integers(0, (30, 54)).tolist()
    for row, y in enumerate(range(top - 30, HEIGHT, 30)):
        cv2.line(picture, (0, y), (WIDTH, y), joint, 4)
        for x in range(left - 54 + 27 * (row % 2), WIDTH, 54):
            cv2.line(picture, (x, y), (x, y + 30), joint, 4)
    return picture


def _water(rng: np.random.Generator) -> Picture:
    picture = _plain((84, 104, 118))
    x = np.arange(-8, WIDTH + 8, 8)
    phase = rng.uniform(0, 6.28)
    for row, y in enumerate(range(0, HEIGHT + 12, 24)):
        wave = np.stack([x, y + 6 * np.sin(x / 18 + phase + 1.3 * row)], axis=1)
        cv2.polylines(picture, [np.round(wave).astype(np.int32)], False, (132, 152, 164), 5)
    return picture


def _night(rng: np.random.Generator) -> Picture:
    picture = _plain((22, 23, 30))
    for x, y in rng.integers(0, (WIDTH, HEIGHT), (45, 2)).tolist():
        cv2.circle(picture, (x, y), 2, (205, 205, 200), -1)
    return picture


_PAINTERS: dict[str, Callable[[np.random.Generator], Picture]] = {
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "brick": _brick,
    "water": _water,
    "night": _night,
}
