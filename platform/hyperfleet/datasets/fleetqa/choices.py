"""Multiple-choice candidates of a clip: its caption, two of other clips and two that are nearly true."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from hyperfleet.datasets.fleetqa.captions import describe
from hyperfleet.datasets.fleetqa.dialect import Dialect
from hyperfleet.datasets.fleetqa.scene import COLORS, MOTIONS, SHAPES, Scene, SceneObject

Attribute = Literal["color", "motion", "shape"]

_VALUES: dict[Attribute, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "motion": tuple(MOTIONS),
    "shape": SHAPES,
}

# Attributes in which the hard candidates differ from the true one.
HARD_ATTRIBUTES: tuple[Attribute, ...] = ("color", "motion")
NUM_HARD = 2
NUM_RANDOM = 2
NUM_OTHERS_TRIED = 16


def draw_choices(
    scene: Scene, others: Sequence[Scene], rng: np.random.Generator, wording: int, words: Dialect
) -> tuple[list[str], int]:
    """Return five captions in one wording and one owner's words, and the index of the true one.

    Two hard candidates change the same attribute of the same object to two other values. Two others describe
    scenes drawn from `others`, which may include this scene; if too few of them are false here, shapes are
    changed instead.

    If the hard candidates changed different attributes, the true caption would be the one close to both, and
    the texts alone would reveal it. With the same attribute, the texts alone give one in three.
    """

    def say(claimed: Scene) -> str:
        return describe(words.speak(claimed), wording)

    attribute = HARD_ATTRIBUTES[int(rng.integers(len(HARD_ATTRIBUTES)))]
    hard = [say(near) for near in altered(scene, attribute, rng, NUM_HARD)]
    tried = rng.choice(len(others), size=min(len(others), NUM_OTHERS_TRIED), replace=False).tolist()
    false = [others[index] for index in tried if not _fits(others[index], scene)]
    false += altered(scene, "shape", rng, NUM_RANDOM)
    far = [text for text in dict.fromkeys(map(say, false)) if text not in hard]
    wrong = hard + far[:NUM_RANDOM]
    options = [wrong[index] for index in rng.permutation(len(wrong)).tolist()]
    answer = int(rng.integers(len(options) + 1))
    options.insert(answer, say(scene))
    return options, answer


def altered(scene: Scene, attribute: Attribute, rng: np.random.Generator, count: int) -> list[Scene]:
    """Return `count` versions of the scene with one attribute of one object changed, each to another value.

    `describe` names this attribute of the object. No object of the scene has a new color or shape.
    """
    num_named = 1 if attribute == "motion" and len(scene.objects) > 2 else len(scene.objects)
    chosen = int(rng.integers(num_named))
    involved = [scene.objects[chosen]] if attribute == "motion" else scene.objects
    present = {getattr(thing, attribute) for thing in involved}
    free = [value for value in _VALUES[attribute] if value not in present]
    values = [free[index] for index in rng.permutation(len(free))[:count].tolist()]
    before, after = scene.objects[:chosen], scene.objects[chosen + 1 :]
    return [
        replace(scene, objects=(*before, _with_value(scene.objects[chosen], attribute, value), *after))
        for value in values
    ]


def _with_value(thing: SceneObject, attribute: Attribute, value: str) -> SceneObject:
    match attribute:
        case "color":
            return replace(thing, color=value)
        case "motion":
            return replace(thing, motion=value)
        case "shape":
            return replace(thing, shape=value)


def _fits(claimed: Scene, scene: Scene) -> bool:
    # Whether a caption of `claimed` is true of `scene`, ignoring the background.
    there = {(thing.color, thing.shape, thing.motion) for thing in scene.objects}
    first, *rest = [(thing.color, thing.shape, thing.motion) for thing in claimed.objects]
    if len(rest) < 2:
        return all(claim in there for claim in (first, *rest))
    named = {(color, shape) for color, shape, _ in there}
    return first in there and all((color, shape) in named for color, shape, _ in rest)
