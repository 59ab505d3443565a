"""Success over the steps of one training: the mean with its interval, and every task."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.plots.panels import STEPS, grid_shape, task_panels
from mtrl_imgrad.evaluation.plots.series import in_unit, last_at_each_step
from mtrl_imgrad.evaluation.plots.titles import DPI, count_episodes, name_ends, set_titles
from mtrl_imgrad.reporting.figures import BAND, INK, PALETTE, new_figure, plain_axes, save_figure
from mtrl_imgrad.validation import checked

_MAX_PANELS = 12


@checked
def plot_success_curve(
    evaluations: EvaluationHistory | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    env: str = "",
    combiner: str = "",
    seed: int | None = None,
) -> Path:
    """Mean success over environment steps with its interval, and below it every task.

    Up to 12 tasks have a panel each, in their order, named as in the tables. More are a map: one row each, ordered by
    their last success. Of several evaluations at the same step the last is drawn.

    A task without a notion of success is left out, which the caption says. If no task has one, the curves are of
    normalized returns (`EvaluationHistory.normalized_returns`).

    Args:
        evaluations: a history, or the path of an ``evaluations.npz``.
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.
        env: for the title, for instance ``"MT10"``.
        combiner: for the title.
        seed: for the title.

    Returns:
        The path of the picture.

    Raises:
        ArgumentError: if there is no evaluation.
        CheckpointError: if the file of evaluations cannot be read.
    """
    history = evaluations if isinstance(evaluations, EvaluationHistory) else EvaluationHistory.load(evaluations)
    if not len(history):
        raise ArgumentError("evaluations must hold at least one evaluation, got none")
    curves = _Curves.of(history)
    num_tasks = len(curves.names)
    if num_tasks == 1:
        figure = new_figure(9.6, 4.0, DPI)
        axes = bottom = figure.add_subplot()
    elif num_tasks <= _MAX_PANELS:
        below = 1.3 * grid_shape(num_tasks)[0] + 0.2
        figure = new_figure(9.6, 3.4 + below, DPI)
        top, rest = figure.subfigures(2, 1, height_ratios=(3.4, below))  # type: ignore[misc]
        axes = bottom = top.add_subplot()
        _draw_panels(rest, curves)
    else:
        figure = new_figure(9.6, 3.2 + 0.145 * num_tasks, DPI)
        axes, bottom = figure.subplots(2, 1, height_ratios=(2.4, 0.145 * num_tasks), sharex=True)
        _draw_map(figure, bottom, curves)
    _draw_mean(axes, curves)
    bottom.set_xlabel(f"{STEPS}{curves.unit}")
    detail = _curve_caption(curves, history)
    set_titles(axes, detail, env, combiner, seed)
    return save_figure(figure, path)


@dataclass(frozen=True)
class _Curves:
    """The curves over steps: E evaluations of the K tasks that have something to show."""

    names: tuple[str, ...]
    measure: str
    steps: NDArray[np.float64]
    unit: str
    tasks: NDArray[np.float64]  # [E, K]
    mean: NDArray[np.float64]  # [E]
    ends: NDArray[np.float64] | None  # [E, 2]
    task_ends: NDArray[np.float64] | None  # [E, K, 2]
    num_episodes: list[int]

    @classmethod
    def of(cls, history: EvaluationHistory) -> _Curves:
        shown = last_at_each_step(history)
        known = np.isfinite(history.success_rate[-1])
        by_success = bool(known.any())
        values = history.success_rate[:, known] if by_success else history.normalized_returns
        names = [name for name, told in zip(history.task_names, known, strict=True) if told or not by_success]
        scale, unit = in_unit(float(history.timesteps[-1]))
        return cls(
            tuple(names),
            "success rate" if by_success else "normalized return",
            history.timesteps[shown] / scale,
            unit,
            values[shown],
            history.mean_success[shown] if by_success else values[shown].mean(axis=1),
            history.mean_intervals[shown] if by_success else None,
            np.array([history.reports[i].intervals[known] for i in shown]) if by_success else None,
            history.num_episodes[shown].tolist(),
        )


def _curve_caption(curves: _Curves, history: EvaluationHistory) -> str:
    counts = curves.num_episodes
    last = f" ({counts[-1]} in the last evaluation)" if len(set(counts[:-1])) == 1 and counts[-1] != counts[0] else ""
    episodes = (
        count_episodes(counts[0])
        if last or len(set(counts)) == 1
        else f"{min(counts)} to {count_episodes(max(counts))}"
    )
    mean = _mean_name(curves)
    if curves.ends is None:
        how = "return on a scale from each task's lowest evaluation, 0, to its highest, 1"
    else:
        how = f"bands: {100 * history.confidence:g} % intervals over episodes"
    lines = [
        f"{mean}, {episodes} a task{last}, {how}",
        str(dataclasses.replace(history.reports[-1].protocol, timesteps=None)),
    ]
    left_out = len(history.task_names) - len(curves.names)
    if left_out:
        lines.append(f"without {left_out} task{'s' if left_out > 1 else ''} whose environment says nothing of success")
    return "\n".join(filter(None, lines))


def _mean_name(curves: _Curves) -> str:
    return f"mean of {len(curves.names)} task{'s' if len(curves.names) > 1 else ''}"


def _draw_mean(axes: Axes, curves: _Curves) -> None:
    if curves.ends is not None:
        low, high = curves.ends.T
        axes.fill_between(curves.steps, low, high, color=BAND, alpha=0.45, linewidth=0, zorder=1)
    axes.plot(curves.steps, curves.mean, color=INK, linewidth=2.4, zorder=4, **_dots(curves, 5))
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(curves.measure)
    plain_axes(axes, "y")
    axes.set_xlim(0, curves.steps[-1] or 1.0)
    name_ends(axes, [float(curves.mean[-1])], [_mean_name(curves)], [{"color": INK}])


def _draw_panels(figure: SubFigure, curves: _Curves) -> None:
    """A panel for each task: its values, their intervals, and the last one beside its name."""
    names = [f"{name}   {end:.2f}" for name, end in zip(curves.names, curves.tasks[-1], strict=True)]
    for k, axes in enumerate(task_panels(figure, names, share_y=True)):
        if curves.task_ends is not None:
            low, high = curves.task_ends[:, k].T
            axes.fill_between(curves.steps, low, high, color=BAND, alpha=0.45, linewidth=0, zorder=1)
        axes.plot(curves.steps, curves.tasks[:, k], color=PALETTE[0], linewidth=1.4, zorder=4, **_dots(curves, 3))
        axes.set_xlim(0, curves.steps[-1] or 1.0)


def _dots(curves: _Curves, size: float) -> dict[str, Any]:
    """Markers for a curve of few points, which would be invisible or seem to say more than it does."""
    return {"marker": "o", "markersize": size, "clip_on": False} if len(curves.steps) < 5 else {}


def _draw_map(figure: Figure, axes: Axes, curves: _Curves) -> None:
    """Many tasks as a map: a row for each task, best on top; a column for each evaluation."""
    order = np.argsort(-curves.tasks[-1], kind="stable")
    edges = _edges(curves.steps)
    mesh = axes.pcolormesh(
        edges, np.arange(len(order) + 1), curves.tasks[:, order].T, cmap="cividis", vmin=0, vmax=1, rasterized=True
    )
    axes.set_yticks(np.arange(len(order)) + 0.5, [curves.names[k] for k in order], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(edges[0], edges[-1])
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(mesh, ax=axes, label=curves.measure, fraction=0.03, pad=0.015, aspect=40)


def _edges(steps: NDArray[Any]) -> NDArray[np.float64]:
    """Bounds of the cells around the evaluations: halfway to the neighbours, mirrored at both ends."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])
