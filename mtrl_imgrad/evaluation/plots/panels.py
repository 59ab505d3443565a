"""Tasks as small multiples: a panel for each, all with the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from mtrl_imgrad.evaluation.plots.series import Series
from mtrl_imgrad.evaluation.plots.titles import DPI
from mtrl_imgrad.reporting.figures import INK, new_figure, plain_axes

STEPS = "environment steps, all tasks together"
"""Name of the horizontal axis."""


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for a number of panels: five columns, ten where there would be more than five rows."""
    columns = min(count, 5 if count <= 25 else 10)
    return -(-count // columns), columns


def task_grid(names: Sequence[str], *, share_y: bool) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each name."""
    rows, columns = grid_shape(len(names))
    figure = new_figure(max(1.9 * columns, 4.0) + 0.4, 1.45 * rows + 1.0, DPI)
    return figure, task_panels(figure, names, share_y=share_y)


def task_panels(figure: Figure | SubFigure, names: Sequence[str], *, share_y: bool) -> list[Axes]:
    """Panels for the names, row by row; rates in [0, 1] where they share the vertical axis.

    Whoever draws in them gives all the same limits of the horizontal axis. They are not shared in Matplotlib's sense:
    its time grows with the square of the number of axes that are.
    """
    rows, columns = grid_shape(len(names))
    grid = figure.subplots(rows, columns, squeeze=False)
    panels: list[Axes] = list(grid.flat)[: len(names)]
    for spare in list(grid.flat)[len(names) :]:
        spare.set_visible(False)
    for k, (axes, name) in enumerate(zip(panels, names, strict=True)):
        axes.set_title(name, loc="left", fontsize=8, color=INK)
        lowest, leftmost = k + columns >= len(names), k % columns == 0
        axes.tick_params(which="both", labelsize=7.5, labelbottom=lowest, labelleft=leftmost or not share_y)
        plain_axes(axes, "y")
        if share_y:
            axes.set_ylim(-0.04, 1.04)
            axes.set_yticks([0, 0.5, 1])
    return panels


def draw_series(axes: Axes, series: Series, style: dict[str, Any], scale: float, *, seeds: bool) -> None:
    """The mean with a dot at both ends, its band and, where asked for, each seed as a thin line to its own ends."""
    axes.plot(
        series.steps / scale, series.mean, linewidth=1.8, marker="o", markersize=3, markevery=[0, -1], clip_on=False,
        zorder=4, **style,
    )  # fmt: skip
    colour = style["color"]
    if np.isfinite(series.band).any():
        low, high = series.band.T
        axes.fill_between(series.steps / scale, low, high, color=colour, alpha=0.18, linewidth=0, zorder=1)
    if seeds and len(series.seeds) > 1:
        for steps, values in series.seeds:
            axes.plot(steps / scale, values, color=colour, linewidth=0.6, alpha=0.5, zorder=2)
