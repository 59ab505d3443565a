"""Figures: one palette, one plain style, one way to a file.

Matplotlib's ``Figure`` is used without pyplot: it needs no window system, keeps nothing between calls, and leaves a
user's own pyplot figures alone.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.reporting.atomic_files import write_whole
from mtrl_imgrad.validation import checked

PALETTE = (
    "#0072B2", "#CC3311", "#80BA5A", "#332288", "#661100", "#888888",
    "#E69F00", "#228833", "#56B4E9", "#882255", "#A5AA99", "#7F3C8D",
)  # fmt: skip
"""Colours of lines, safe for colour-blind readers.

Any two are a CIE76 distance of 12 or more apart, with full colour vision and without red, green or blue cones; within
each half, drawn solid and dashed, 24 or more. Picked from published palettes.
"""
INK, QUIET, BAND = "#1A1A1A", "#6B6B6B", "#8FB3D9"
"""Text and means; captions and ticks; intervals and single values."""
_GRID = "#DDDDDD"
_FORMATS = ("png", "pdf", "svg")


def new_figure(width: float, height: float, dpi: int = 130) -> Figure:
    """An empty figure, in inches, which makes room for its own labels."""
    return _ShownFigure(figsize=(width, height), dpi=dpi, layout="constrained")


class _ShownFigure(Figure):
    """A figure that a notebook shows as a cell's last line, whether pyplot is loaded or not."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", facecolor="white")
        return file.getvalue()


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the ``index``-th of several lines: the palette's first half solid, the second dashed."""
    place = index % len(PALETTE)
    return {"color": PALETTE[place], "linestyle": "-" if place < len(PALETTE) // 2 else (0, (4, 1.5))}


def plain_axes(axes: Axes, grid: Literal["x", "y", "both"] | None = None) -> None:
    """No frame above and to the right; where asked for, a grid behind the lines."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=QUIET, labelcolor=INK)


@checked
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure atomically, in the format of the path's suffix.

    Args:
        figure: to write.
        path: ends in ``.png``, ``.pdf`` or ``.svg``; folders are made.

    Returns:
        The path.

    Raises:
        ArgumentError: if the suffix is another, or the folder cannot be made.
        CheckpointError: if the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in _FORMATS:
        raise ArgumentError(f"path must end in .png, .pdf or .svg, got {str(path)!r}")
    write_whole(path, lambda file: figure.savefig(file, format=suffix, facecolor="white"))
    return path
