"""Captions of a scene: true sentences in several wordings, and queries that each fit only one clip.

Like answers, captions name true colors. Queries and multiple choice use the sentence of `describe`: color,
shape and motion of each object (of three, only the motion of the first) and, for a single object, its
background. It has at most 12 words.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperfleet.datasets.fleetqa.scene import COUNTS, HEIGHT, RADIUS_PX, WIDTH, Scene, SceneObject

CAPTIONS_PER_VIDEO = 20

# An object that starts at least this many pixels off the middle counts as being at a side.
OFF_CENTER_PX = 25.0
MAX_DETAIL = 2

_PLACE = {
    "grass": "on the grass",
    "sky": "in the sky",
    "sand": "on the sand",
    "brick": "on the bricks",
    "water": "on the water",
    "night": "in the night",
}


@dataclass(frozen=True, slots=True)
class _Wording:
    # {0} and {1} are objects with their motions, {others} the names of all but the first.
    article: str
    moves: str
    rests: str
    one: str
    two: str
    three: str


_WORDINGS = (
    _Wording("a", "moves", "stays still", "{0} {place}", "{0} and {1}", "{0} with {others}"),
    _Wording("a", "drifts", "stands still", "{place} {0}", "{0} while {1}", "with {others} {0}"),
    _Wording("one", "goes", "is still", "{0} {place}", "{1} and {0}", "{0} beside {others}"),
    _Wording("the", "moves", "stays still", "{place} {0}", "{1} while {0}", "{0} near {others}"),
)
NUM_WORDINGS = len(_WORDINGS)


def describe(scene: Scene, wording: int = 0, detail: int = 0) -> str:
    """Describe a scene in one of `NUM_WORDINGS` wordings.

    Detail 1 adds the size of the first object; detail 2 also adds the position where a single object starts.
    """
    words = _WORDINGS[wording]
    first, *others = scene.objects
    side = f" {_side(first)}" if detail > 1 and not others else ""
    size = f"{_size(scene, first)} " if detail > 0 else ""
    subjects = [
        f"{size}{first.color} {first.shape}{side}",
        *(f"{thing.color} {thing.shape}" for thing in others),
    ]
    phrases = [
        f"{_with_article(words.article, subject)} {_motion(words, thing)}"
        for subject, thing in zip(subjects, scene.objects, strict=True)
    ]
    names = " and ".join(subjects[1:])
    pattern = (words.one, words.two, words.three)[len(others)]
    return pattern.format(*phrases, place=_PLACE[scene.background], others=_with_article("a", names))


def describe_all(scene: Scene) -> str:
    """Name every attribute: size, color, shape, letter, motion and order of objects, and the background."""
    phrases = []
    for thing in scene.objects:
        letter = f" with the letter {thing.letter}" if thing.letter else ""
        later = "later " if thing.appears > 0 else ""
        subject = f"a {_size(scene, thing)} {thing.color} {thing.shape}{letter}"
        phrases.append(f"{later}{subject} {_motion(_WORDINGS[0], thing)}")
    return f"{' and '.join(phrases)} {_PLACE[scene.background]}"


def draw_captions(scene: Scene, rng: np.random.Generator, query: str) -> list[str]:
    """Return the captions of a clip: `query`, the one of `describe_all`, and others drawn at random."""
    fixed = [query, describe_all(scene)]
    free = [text for text in dict.fromkeys(_true_sentences(scene)) if text not in fixed]
    drawn = rng.permutation(len(free))[: CAPTIONS_PER_VIDEO - len(fixed)]
    return fixed + [free[index] for index in drawn.tolist()]


def choose_queries(groups: Iterable[Sequence[tuple[str, Scene]]]) -> dict[str, int]:
    """Choose one (video id, scene) per group, and the least `detail` that fits it and no other chosen scene.

    Scenes that captions cannot distinguish from one chosen before are skipped; a group with no other scenes
    has no query. Scenes have concepts, not words: owners who call one scene by two names see one scene.
    """
    chosen: dict[str, Scene] = {}
    taken: set[str] = set()
    for group in groups:
        for video_id, scene in group:
            most = describe(scene, detail=MAX_DETAIL)
            if most not in taken:
                taken.add(most)
                chosen[video_id] = scene
                break
    details = dict.fromkeys(chosen, 0)
    for detail in range(1, MAX_DETAIL + 1):
        texts = {video_id: describe(chosen[video_id], detail=own) for video_id, own in details.items()}
        counts = Counter(texts.values())
        # All scenes that share a caption get a longer one; a short one would still fit the others.
        details = {
            video_id: detail if counts[texts[video_id]] > 1 else own for video_id, own in details.items()
        }
    return details


def _true_sentences(scene: Scene) -> Iterable[str]:
    place = _PLACE[scene.background]
    for wording, words in enumerate(_WORDINGS):
        yield describe(scene, wording)
        yield describe(scene, wording, detail=1)
        for thing in scene.objects:
            motion = _motion(words, thing)
            for subject in (f"{thing.color} {thing.shape}", thing.shape, f"{thing.color} object"):
                yield f"{_with_article(words.article, subject)} {motion}"
                yield f"{_with_article(words.article, subject)} {motion} {place}"
    for thing in scene.objects:
        yield f"there is {_with_article('a', thing.color)} {thing.shape} {place}"
        yield f"{_with_article('a', _size(scene, thing))} {thing.color} {thing.shape} {_side(thing)}"
        if thing.letter:
            yield f"the letter {thing.letter} is on {_with_article('a', thing.color)} {thing.shape}"
        if thing.appears > 0:
            yield f"{_with_article('a', thing.color)} {thing.shape} appears last"
    plural = "object is" if len(scene.objects) == 1 else "objects are"
    yield f"{COUNTS[len(scene.objects) - 1]} {plural} {place}"


def _motion(words: _Wording, thing: SceneObject) -> str:
    return words.rests if thing.motion == "nowhere" else f"{words.moves} {thing.motion}"


def _size(scene: Scene, thing: SceneObject) -> str:
    return "large" if thing.radius >= sum(RADIUS_PX[len(scene.objects)]) / 2 else "small"


def _side(thing: SceneObject) -> str:
    right, down = thing.start[0] - WIDTH / 2, thing.start[1] - HEIGHT / 2
    if max(abs(right), abs(down)) < OFF_CENTER_PX:
        return "in the middle"
    if abs(right) > abs(down):
        return "at the right" if right > 0 else "at the left"
    return "at the bottom" if down > 0 else "at the top"


def _with_article(article: str, words: str) -> str:
    return f"{'an' if article == 'a' and words[:1] in set('aeiou') else article} {words}"
