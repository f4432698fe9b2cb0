"""Words of owners: everyone has one word per color and per shape; scenes keep the concepts.

An owner draws one vocabulary for colors and, independently, one for shapes. A question whose answer is a
color names no color, and one whose answer is a shape names no shape, so that no sample reveals the word it
asks for. Other samples of the same device do.
"""

from dataclasses import dataclass, replace

import numpy as np

from hyperfleet.datasets.fleetqa.scene import Scene

# At index i, the words of vocabulary i; the first are the concepts' own names.
COLOR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "amber", "tangerine"),
    "yellow": ("yellow", "lemon", "gold"),
    "green": ("green", "emerald", "lime"),
    "cyan": ("cyan", "turquoise", "aqua"),
    "blue": ("blue", "azure", "cobalt"),
    "purple": ("purple", "violet", "plum"),
    "pink": ("pink", "magenta", "rose"),
}
SHAPE_WORDS = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "wedge", "delta"),
    "star": ("star", "spark", "asterisk"),
    "cross": ("cross", "plus", "crosslet"),
    "ring": ("ring", "hoop", "loop"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """Numbers of an owner's vocabularies for colors and for shapes."""

    color: int = 0
    shape: int = 0

    def speak(self, scene: Scene) -> Scene:
        """Return the scene with the owner's words in place of the concepts."""
        objects = (
            replace(
                thing,
                color=COLOR_WORDS[thing.color][self.color],
                shape=SHAPE_WORDS[thing.shape][self.shape],
            )
            for thing in scene.objects
        )
        return replace(scene, objects=tuple(objects))


def draw_dialect(rng: np.random.Generator, num_vocabularies: int) -> Dialect:
    """Draw an owner's vocabularies; equal draws give the same share of them, however many there are."""
    color, shape = (int(draw * num_vocabularies) for draw in rng.random(2))
    return Dialect(color=color, shape=shape)
