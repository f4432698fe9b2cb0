"""Questions about a scene, each with exactly one right answer.

Answers come from the scene, never from the pixels. Questions start with what, where or how, as required by
the answer types of the public data sets.
"""

from collections.abc import Iterable

import numpy as np

from hyperfleet.datasets.fleetqa.scene import COUNTS, Scene, SceneObject

# Kind of a question by its first words. No prefix is the start of another.
KINDS = {
    "what color": "color",
    "what shape": "shape",
    "what letter": "letter",
    "what is behind": "background",
    "what appears": "order",
    "where does": "motion",
    "how many": "count",
}
OTHER_KIND = "other"

# Share of questions about color, which a camera changes.
COLOR_SHARE = 0.39

QuestionAnswer = tuple[str, str]


def question_kind(question: str) -> str:
    """Return the kind of a FleetQA question: color, shape, letter, background, order, motion or count.

    Questions of other data sets give "other".
    """
    return next((kind for prefix, kind in KINDS.items() if question.startswith(prefix)), OTHER_KIND)


def ask(scene: Scene, num_questions: int, rng: np.random.Generator) -> list[QuestionAnswer]:
    """Choose up to `num_questions` that the scene allows, always including those about a letter."""
    colors = _color_questions(scene)
    others = _other_questions(scene)
    must = [pair for pair in others if question_kind(pair[0]) == "letter"]
    free = [pair for pair in others if question_kind(pair[0]) != "letter"]
    share = COLOR_SHARE * num_questions
    num_colors = min(len(colors), int(share) + int(rng.random() < share - int(share)))
    chosen = [colors[index] for index in rng.permutation(len(colors))[:num_colors]] + must
    chosen += [free[index] for index in rng.permutation(len(free))[: num_questions - len(chosen)]]
    return [chosen[index] for index in rng.permutation(len(chosen))]


def _color_questions(scene: Scene) -> list[QuestionAnswer]:
    pairs = [(f"what color is the {thing.shape}?", thing.color) for thing in scene.objects]
    only = _only(scene.objects)
    if only is not None:
        pairs += [
            ("what color is the object?", only.color),
            (f"what color is the object {_place_words(scene)}?", only.color),
        ]
    moving = _only(thing for thing in scene.objects if thing.motion != "nowhere")
    if moving is not None:
        pairs.append(("what color is the moving object?", moving.color))
    for thing in _with_unique_motion(scene):
        pairs.append((f"what color is the object that moves {thing.motion}?", thing.color))
    lettered = _only(thing for thing in scene.objects if thing.letter)
    if lettered is not None and len(scene.objects) > 1:
        pairs.append(("what color is the object with a letter?", lettered.color))
    late = _last(scene)
    if late is not None:
        pairs.append(("what color appears last?", late.color))
    return pairs


def _other_questions(scene: Scene) -> list[QuestionAnswer]:
    pairs = [("how many objects are in the video?", COUNTS[len(scene.objects) - 1])]
    for thing in scene.objects:
        pairs += [
            (f"what shape is the {thing.color} object?", thing.shape),
            (f"where does the {thing.shape} move?", thing.motion),
            (f"where does the {thing.color} object move?", thing.motion),
            (f"what is behind the {thing.shape}?", scene.background),
        ]
        if thing.letter:
            pairs.append((f"what letter is on the {thing.shape}?", thing.letter))
    only = _only(scene.objects)
    if only is not None:
        pairs += [("what shape is the object?", only.shape), ("what is behind the object?", scene.background)]
    for thing in _with_unique_motion(scene):
        pairs.append((f"what shape moves {thing.motion}?", thing.shape))
    late = _last(scene)
    if late is not None:
        pairs.append(("what appears last?", late.shape))
    return pairs


def _only(things: Iterable[SceneObject]) -> SceneObject | None:
    found = list(things)
    return found[0] if len(found) == 1 else None


def _with_unique_motion(scene: Scene) -> list[SceneObject]:
    motions = [thing.motion for thing in scene.objects]
    return [
        thing for thing in scene.objects if thing.motion != "nowhere" and motions.count(thing.motion) == 1
    ]


def _last(scene: Scene) -> SceneObject | None:
    return _only(thing for thing in scene.objects if thing.appears > 0)


def _place_words(scene: Scene) -> str:
    return {
        "grass": "on the grass",
        "sky": "in the sky",
        "sand": "on the sand",
        "brick": "on the brick wall",
        "water": "on the water",
        "night": "in the night",
    }[scene.background]
