"""How figures look: one palette, one set of sizes, PNG bytes out.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which readers with any
of the common colour-vision deficiencies can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
YELLOW = "#F0E442"
INK = "#1f2933"
MUTED = "#6b7785"
FAINT = "#d9dee4"

LOSS_COLOURS = {"ce": BLUE, "dice": VERMILION}
LOSS_NAMES = {"ce": "Cross entropy", "dice": "Dice loss"}
SEGMENT_COLOURS = (ORANGE, SKY, GREEN, PURPLE, YELLOW, VERMILION, BLUE)
ENTROPY_COLOURMAP = "magma"

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "hatch.linewidth": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def segment_colour(label: int) -> str:
    """Return the colour of structure `label` (1, 2, ...); colours repeat after seven."""
    return SEGMENT_COLOURS[(label - 1) % len(SEGMENT_COLOURS)]


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the house style inside this block; matplotlib's own settings come back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches that pyplot does not keep alive."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return the figure as PNG, without a time stamp, so that equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
