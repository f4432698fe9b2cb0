"""Scenes: the truth in front of the camera. Answers follow the scene, not its recording.

Coordinates are pixels of the 320x240 frame. Even under the strongest zoom and shake of a camera, objects
stay inside the part of the picture that an evaluation crop keeps (`ARENA`) and clear of the maker's mark.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from hyperfleet.datasets.fleetqa.scales import FleetQAConfig

WIDTH, HEIGHT = 320, 240

# Hues in degrees, at least 28 apart, so that the name of a color follows from its true hue.
COLORS = {
    "red": 0.0,
    "orange": 28.0,
    "yellow": 56.0,
    "green": 120.0,
    "cyan": 180.0,
    "blue": 228.0,
    "purple": 274.0,
    "pink": 322.0,
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}
BACKGROUNDS = ("grass", "sky", "sand", "brick", "water", "night")
COUNTS = ("one", "two", "three")
COMMON_LETTERS = "abcdefghklmn"
RESERVED_LETTERS = "jqrvwxyz"

# The mark: 2x2 patches in the top left of the central 240x240 square, inside its central 80 % and, for
# pictures of 64 (or 224) pixels with patches of 16, inside the model's first patch.
MARK_PATCH_PX = 22
MARK_LEFT, MARK_TOP = 64, 24
MARK_COLORS = ((214, 40, 40), (40, 176, 64), (44, 72, 214), (128, 128, 128))

ARENA = (70.0, 30.0, 250.0, 210.0)
# Zoom by 8 % moves and enlarges objects near the mark by up to 11 px; shake adds 4.
MARK_MARGIN_PX = 16.0
RADIUS_PX = {1: (32.0, 50.0), 2: (26.0, 35.0), 3: (20.0, 25.0)}
TRAVEL_PX = (55.0, 100.0)
NUM_TRIES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Priors:
    """Probabilities of what a device films: tuples that sum to 1, in the order of the names above."""

    color: tuple[float, ...]
    shape: tuple[float, ...]
    motion: tuple[float, ...]
    background: tuple[float, ...]
    count: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneObject:
    """One object. It moves from `start` to `end` (x, y) from the time it appears to the end of the clip.

    `appears` is the share of the clip before the object appears (0: from the start); `letter` is written on
    it, "" for none.
    """

    shape: str
    color: str
    rgb: tuple[int, int, int]
    motion: str
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]
    appears: float = 0.0
    letter: str = ""

    def positions(self, times: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 2"]:
        """Return the centers at `times` (shares of the clip, 0..1)."""
        progress = np.clip((times - self.appears) / (1 - self.appears), 0, 1)[:, None]
        centers: np.ndarray = (1 - progress) * np.array(self.start) + progress * np.array(self.end)
        return centers


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Content of one clip. Its objects have distinct colors and shapes."""

    background: str
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, slots=True)
class _Path:
    radius: float
    appears: float
    start: np.ndarray
    end: np.ndarray


def draw_scene(rng: np.random.Generator, priors: Priors, config: FleetQAConfig, *, live: bool) -> Scene:
    """Draw a scene from a device's priors; only `live` clips may have reserved letters."""
    num_objects = 1 + int(rng.choice(len(priors.count), p=priors.count))
    colors = _draw_distinct(rng, tuple(COLORS), priors.color, num_objects)
    shapes = _draw_distinct(rng, SHAPES, priors.shape, num_objects)
    motions = [str(motion) for motion in rng.choice(list(MOTIONS), size=num_objects, p=priors.motion)]
    background = str(rng.choice(BACKGROUNDS, p=priors.background))
    late = num_objects > 1 and rng.random() < 0.5
    appears = [0.0] * (num_objects - 1) + [round(float(rng.uniform(0.3, 0.45)), 3) if late else 0.0]
    letters = [""] * num_objects
    letter = _draw_letter(rng, config, live=live)
    letters[int(rng.integers(num_objects))] = letter
    paths = _place(rng, motions, appears)
    objects = tuple(
        SceneObject(
            shape=shapes[index],
            color=colors[index],
            rgb=_draw_rgb(rng, colors[index]),
            motion=motions[index],
            radius=round(float(path.radius), 2),
            start=(round(float(path.start[0]), 2), round(float(path.start[1]), 2)),
            end=(round(float(path.end[0]), 2), round(float(path.end[1]), 2)),
            appears=appears[index],
            letter=letters[index],
        )
        for index, path in enumerate(paths)
    )
    return Scene(background=background, objects=objects)


def _draw_distinct(
    rng: np.random.Generator, names: tuple[str, ...], prior: tuple[float, ...], size: int
) -> list[str]:
    return [str(name) for name in rng.choice(names, size=size, replace=False, p=prior)]


def _draw_letter(rng: np.random.Generator, config: FleetQAConfig, *, live: bool) -> str:
    # Always draw all three: a letter must not change the rest of the scene.
    shown, reserved, rank = rng.random(3)
    if shown >= config.letter_share:
        return ""
    letters = RESERVED_LETTERS if live and reserved < config.reserved_letter_share else COMMON_LETTERS
    zipf = 1 / np.arange(1, len(letters) + 1) ** 1.1
    return letters[int(np.searchsorted(np.cumsum(zipf / zipf.sum()), rank))]


def _draw_rgb(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    # Vary brightness and saturation, which would otherwise reveal a rotated color.
    hue = (COLORS[color] + rng.uniform(-5, 5)) % 360
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, rng.uniform(0.75, 1.0), rng.uniform(0.72, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def _place(rng: np.random.Generator, motions: list[str], appears: list[float]) -> list[_Path]:
    low, high = RADIUS_PX[len(motions)]
    radii = rng.uniform(low, high, len(motions))
    # If the scene is too crowded, retry with smaller objects; those of a few pixels always fit.
    while True:
        placed: list[_Path] = []
        for radius, motion, appear in zip(radii.tolist(), motions, appears, strict=True):
            path = _place_one(rng, radius, motion, appear, placed)
            if path is None:
                break
            placed.append(path)
        if len(placed) == len(motions):
            return placed
        radii = 0.95 * radii


def _place_one(
    rng: np.random.Generator, radius: float, motion: str, appears: float, placed: list[_Path]
) -> _Path | None:
    left, top, right, bottom = ARENA
    low = np.array([left, top]) + radius
    high = np.array([right, bottom]) - radius
    travel = rng.uniform(*TRAVEL_PX, (NUM_TRIES, 1))
    step = np.array(MOTIONS[motion]) * np.minimum(travel, high - low)
    start = rng.uniform(np.maximum(low, low - step), np.minimum(high, high - step))
    end = start + step
    valid = _clear_of_mark(start, end, radius)
    for other in placed:
        valid &= _clear_of_object(start, end, radius, appears, other)
    found = np.flatnonzero(valid)
    if len(found) == 0:
        return None
    first = int(found[0])
    return _Path(radius, appears, start[first], end[first])


def _clear_of_mark(
    start: Float64[np.ndarray, "n 2"], end: Float64[np.ndarray, "n 2"], radius: float
) -> Bool[np.ndarray, " n"]:
    nearest = np.minimum(start, end) - radius
    limit = np.array([MARK_LEFT, MARK_TOP]) + 2 * MARK_PATCH_PX + MARK_MARGIN_PX
    return np.asarray((nearest > limit).any(axis=1))


def _clear_of_object(
    start: Float64[np.ndarray, "n 2"],
    end: Float64[np.ndarray, "n 2"],
    radius: float,
    appears: float,
    other: _Path,
) -> Bool[np.ndarray, " n"]:
    times = np.linspace(0, 1, 16)
    own = np.clip((times - appears) / (1 - appears), 0, 1)[None, :, None]
    others = np.clip((times - other.appears) / (1 - other.appears), 0, 1)[None, :, None]
    gap = (start[:, None] + own * (end - start)[:, None]) - (other.start + others * (other.end - other.start))
    # Corners are up to 1.13 radii from the center.
    return np.asarray((np.linalg.norm(gap, axis=2) > 1.13 * (radius + other.radius)).all(axis=1))
