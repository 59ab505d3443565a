"""Pictures of descent on the synthetic problem, as PNG, PDF or SVG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mtrl_imgrad.reporting.figures import INK, PALETTE, QUIET, line_style, new_figure, plain_axes, save_figure
from mtrl_imgrad.synthetic.measures import Curves, Outcome, curves
from mtrl_imgrad.synthetic.optima import front, minimiser
from mtrl_imgrad.synthetic.problem import evaluate, task_weights
from mtrl_imgrad.synthetic.run import Trajectories
from mtrl_imgrad.validation import checked

_STAR = "#F5C518"
_DPI = 90
_REACH = 10.5
_LINE_POINTS = 3000


@checked
def plot_trajectories(
    run: Trajectories, outcomes: Sequence[Outcome], scenario: int, path: str | os.PathLike[str]
) -> Path:
    """`trajectories_figure` in a file.

    Args:
        run: the trajectories.
        outcomes: of `mtrl_imgrad.synthetic.measures.outcomes`, for the panels' titles.
        scenario: index into ``run.shares``.
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.

    Returns:
        The path of the picture.
    """
    return save_figure(trajectories_figure(run, outcomes, scenario), path)


@checked
def trajectories_figure(run: Trajectories, outcomes: Sequence[Outcome], scenario: int) -> Figure:
    """A panel a method: the landscape of the scenario's mean loss, the Pareto front, its optimum, all trajectories.

    Arguments as `plot_trajectories`.
    """
    s = run.shares[scenario]
    columns = min(len(run.methods), 4)
    rows = -(-len(run.methods) // columns)
    figure = new_figure(3.0 * columns, 3.2 * rows + 0.6, _DPI)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(run.methods) :]:
        panel.set_axis_off()
    landscape = _landscape(s)
    for m, method in enumerate(run.methods):
        panel = panels.flat[m]
        _draw_landscape(panel, landscape)
        _draw_goal(panel, s)
        for n, start in enumerate(run.starts):
            _draw_trajectory(panel, run.positions[:, m, scenario, n], PALETTE[n % len(PALETTE)])
            panel.plot(*start, marker="o", markersize=5, color=INK, markeredgecolor="white", zorder=5)
        own = [outcome for outcome in outcomes if (outcome.method, outcome.s) == (method.label, s)]
        count = f"optimum {sum(o.at_optimum for o in own)}/{len(own)}, front {sum(o.at_front for o in own)}/{len(own)}"
        panel.set_title(method.label, loc="left", fontsize=10, fontweight="bold", color=INK)
        panel.set_xlabel(count, fontsize=8, color=INK)
    _entitle(figure, run, s, "circles: starts, diamonds: ends, line: Pareto front, star: optimum")
    return figure


@checked
def plot_failures(run: Trajectories, scenario: int, path: str | os.PathLike[str]) -> Path:
    """Pareto failures so far, before the front, a panel a start, a line a method; arguments as `plot_progress`."""
    rows = [("Pareto failures so far", lambda curve, n: curve.failures[:, n])]
    return _plot_over_steps(run, scenario, path, rows)


@checked
def plot_progress(run: Trajectories, scenario: int, path: str | os.PathLike[str]) -> Path:
    """How far each task has come, how alike the gradients were, how balanced: a column a start, a line a method.

    Args:
        run: the trajectories.
        scenario: index into ``run.shares``.
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.

    Returns:
        The path of the picture.
    """
    rows = [
        ("left of task 1's loss", lambda curve, n: curve.progress[:, n, 0]),
        ("left of task 2's loss", lambda curve, n: curve.progress[:, n, 1]),
        ("cosine of g1 and g2", lambda curve, n: curve.similarity[:, n]),
        ("cos theta of IMGrad", lambda curve, n: curve.cos_theta[:, n]),
    ]
    return _plot_over_steps(run, scenario, path, rows)


def _plot_over_steps(run: Trajectories, scenario: int, path: str | os.PathLike[str], rows: Sequence[Any]) -> Path:
    """A grid of panels: ``rows`` are pairs of an axis label and what to draw of a method's curves for start n."""
    columns = len(run.starts)
    figure = new_figure(max(2.6 * columns + 0.6, 6.5), 1.8 * len(rows) + 1.3, _DPI)
    panels = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey="row")
    drawn = [curves(run, m, scenario) for m in range(len(run.methods))]
    for n, start in enumerate(run.starts):
        panels[0, n].set_title(f"from ({start[0]:g}, {start[1]:g})", fontsize=9, color=INK)
        panels[-1, n].set_xlabel("thousand steps", fontsize=8)
        for i, (_, value) in enumerate(rows):
            for m, curve in enumerate(drawn):
                _draw_curve(panels[i, n], curve, value(curve, n), m)
    for i, (label, _) in enumerate(rows):
        panels[i, 0].set_ylabel(label, fontsize=8)
    figure.legend(
        panels[0, 0].lines, [method.label for method in run.methods], loc="outside lower center",
        ncols=min(len(run.methods), 4), frameon=False, fontsize=8,
    )  # fmt: skip
    _entitle(figure, run, run.shares[scenario], f"{run.steps:,} steps")
    return save_figure(figure, path)


def _draw_curve(axes: Axes, curve: Curves, values: Tensor, index: int) -> None:
    axes.plot(curve.steps.numpy() / 1000, values.numpy(), linewidth=1.2, **line_style(index))
    plain_axes(axes)
    axes.grid(color="#E3E3E3", linewidth=0.6)
    axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=7)


def _landscape(s: float) -> tuple[Any, Any, Any]:
    """x1, x2 and the mean loss on a grid."""
    axis = torch.linspace(-_REACH, _REACH, 241, dtype=torch.float64)
    x2, x1 = torch.meshgrid(axis, axis, indexing="ij")
    losses = evaluate(torch.stack([x1, x2], -1))[0] @ task_weights([s])[0]
    return axis.numpy(), axis.numpy(), losses.numpy() / 2


def _draw_landscape(axes: Axes, landscape: tuple[Any, Any, Any]) -> None:
    x1, x2, losses = landscape
    levels = np.linspace(losses.min(), losses.max(), 22)
    axes.contourf(x1, x2, losses, levels=levels, cmap="Greys_r", alpha=0.35)
    axes.contour(x1, x2, losses, levels=levels, colors="#B8B8B8", linewidths=0.4)
    axes.set_aspect("equal")
    axes.set_xlim(-_REACH, _REACH)
    axes.set_ylim(-_REACH, _REACH)
    axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=7)


def _draw_goal(axes: Axes, s: float) -> None:
    axes.plot(*front().T.numpy(), color=INK, linewidth=2.2, solid_capstyle="round", zorder=2)
    best = minimiser(torch.tensor(s, dtype=torch.float64)).numpy()
    axes.plot(*best, marker="*", markersize=13, color=_STAR, markeredgecolor=INK, markeredgewidth=0.7, zorder=6)


def _draw_trajectory(axes: Axes, positions: Tensor, colour: str) -> None:
    """A line and its end; not more points than can be seen."""
    every = -(-len(positions) // _LINE_POINTS)
    line = torch.cat([positions[:-1:every], positions[-1:]]).numpy()
    axes.plot(line[:, 0], line[:, 1], color="white", linewidth=2.8, zorder=3)
    axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.5, zorder=4)
    axes.plot(*line[-1], marker="D", markersize=4.5, color=colour, markeredgecolor="white", zorder=7)


def _entitle(figure: Figure, run: Trajectories, s: float, detail: str) -> None:
    figure.suptitle(f"losses {s:g} f1 and {1 - s:g} f2, Adam {run.lr:g}, {detail}", x=0.01, ha="left", fontsize=9.5)
