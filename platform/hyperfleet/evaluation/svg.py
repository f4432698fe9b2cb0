"""Inline SVG plots for reports: no script, system fonts, text in the page's colours.

They use matplotlib's object-oriented API, so importing this module selects no backend.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which is safe for colour-blind readers.
STATIC = "#e69f00"
PERSONALIZED = "#0072b2"
SEEN = "#56b4e9"
HELD_OUT = "#d55e00"

# Replaced by `currentColor` after drawing, so that text and axes follow light and dark pages.
INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hyperfleet",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_SIZE_INCHES = (5.2, 3.4)


def svg(name: str, label: str, draw: Callable[[Axes], None]) -> str:
    """Draw one plot and return it as an SVG element; `name` makes its ids unique on the page."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        # Metadata would hold a date, a creator and links to schemas.
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _inline(buffer.getvalue(), name, label)


def _inline(text: str, name: str, label: str) -> str:
    """Turn an SVG file into an element of a page: no prolog, unique ids, the page's text colour."""
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :]
    width, height = (72 * inches for inches in _SIZE_INCHES)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace(INK, "currentColor")
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}">{body}'
