"""Pictures of success rates, as PNG files: the curve of a training, the bars of an evaluation.

Matplotlib's ``Figure`` is used without pyplot: nothing is kept between calls, no window system is needed, and
a user's own pyplot figures are left alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.reports import EvaluationHistory, SuccessReport
from mtrl_imgrad.validation import checked

__all__ = ["plot_per_task_bars", "plot_success_curve"]

PALETTE = (
    "#0072B2", "#CC3311", "#80BA5A", "#332288", "#661100", "#888888",
    "#E69F00", "#228833", "#56B4E9", "#882255", "#A5AA99", "#7F3C8D",
)  # fmt: skip
"""Picked from published palettes so that any two can be told apart (CIE76 above 12) with full colour vision
and without red, green or blue cones; within each half, drawn solid and dashed, it is above 24."""
_INK, _QUIET, _BAND = "#1A1A1A", "#6B6B6B", "#8FB3D9"
_MAX_LINES = len(PALETTE)
_DPI = 150


@checked
def plot_success_curve(
    evaluations: EvaluationHistory | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    env: str = "",
    combiner: str = "",
    seed: int | None = None,
) -> Path:
    """Mean success over environment steps with its interval, and every task.

    Up to 12 tasks are thin lines, each with its name at its end. More tasks would be a tangle: then the mean
    has a panel of its own above a map of all tasks, one row each, ordered by their last success. Of several
    evaluations at the same step the last is drawn.

    A task without a notion of success is left out, which the caption says. If no task has one, the curves are of
    normalized returns (`EvaluationHistory.normalized_returns`).

    Args:
        evaluations: a history, or the path of an ``evaluations.npz``.
        path: of the PNG; folders are made.
        env: for the title, for instance ``"MT10"``.
        combiner: for the title.
        seed: for the title.

    Returns:
        The path of the PNG.

    Raises:
        ArgumentError: if there is no evaluation.
        CheckpointError: if the file of evaluations cannot be read.
    """
    history = evaluations if isinstance(evaluations, EvaluationHistory) else EvaluationHistory.load(evaluations)
    if not len(history):
        raise ArgumentError("evaluations must hold at least one evaluation, got none")
    curves = _Curves.of(history)
    num_tasks = len(curves.names)
    if num_tasks <= _MAX_LINES:
        figure = Figure(figsize=(9.6, 5.0), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        _draw_tasks(axes, curves)
        bottom = axes
    else:
        figure = Figure(figsize=(9.6, 3.2 + 0.145 * num_tasks), dpi=_DPI, layout="constrained")
        axes, bottom = figure.subplots(2, 1, height_ratios=(2.4, 0.145 * num_tasks), sharex=True)
        _draw_map(figure, bottom, curves)
    _draw_mean(axes, curves)
    bottom.set_xlabel(f"environment steps, all tasks together{curves.unit}")
    detail = _curve_caption(curves, history)
    _entitle(axes, [env, combiner, _seed(seed)], detail)
    return _save(figure, path)


@checked
def plot_per_task_bars(
    report: SuccessReport,
    path: str | os.PathLike[str],
    *,
    before: SuccessReport | None = None,
    env: str = "",
    combiner: str = "",
    seed: int | None = None,
) -> Path:
    """Success of every task as bars with Wilson intervals, best on top, and the mean.

    Args:
        report: what to show.
        before: the same tasks, earlier or by another agent: drawn as circles with intervals.
        path: of the PNG; folders are made.
        env: for the title.
        combiner: for the title.
        seed: for the title.

    Returns:
        The path of the PNG.

    Raises:
        ArgumentError: if no task has a notion of success.
        TaskMismatchError: if ``before`` speaks of other tasks.
    """
    if np.isnan(report.mean_success):
        raise ArgumentError("report must have a task with a notion of success, got none: there are no rates to draw")
    if before is not None and before.task_names != report.task_names:
        raise TaskMismatchError(f"before is of {before.task_names}, the report of {report.task_names}")
    order = np.argsort(-report.success_rate, kind="stable")
    figure = Figure(figsize=(8.0, 1.6 + 0.27 * (len(order) + 1)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    places = [*range(len(order)), len(order) + 0.4]
    rates, ends = _rates_and_ends(report, order)
    colours = [_BAND] * len(order) + ["#4A7FB5"]
    axes.barh(places, rates, height=0.72, color=colours, label="after" if before else None)
    _draw_intervals(axes, places, rates, ends, _INK, None)
    if before is not None:
        old, old_ends = _rates_and_ends(before, order)
        _draw_intervals(axes, [place + 0.2 for place in places], old, old_ends, "#B4561B", "before")
        figure.legend(loc="upper right", ncols=2, frameon=False, fontsize=9)  # beside the title
    axes.set_yticks(places, [*(report.task_names[k] for k in order), "mean"], fontsize=9)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_ylim(places[-1] + 0.6, -0.6)
    for place, rate in zip(places, rates, strict=True):
        axes.text(1.02, place, "-" if np.isnan(rate) else f"{rate:.2f}", va="center_baseline", fontsize=9, color=_INK)
    axes.set_xlim(0, 1)
    _plain_axes(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("success rate")
    detail = _bar_caption(report, before)
    _entitle(axes, [env, combiner, _seed(seed)], detail)
    return _save(figure, path)


def _bar_caption(report: SuccessReport, before: SuccessReport | None) -> str:
    episodes = f"{_episodes(report.num_episodes)} a task"
    if before is not None and before.num_episodes != report.num_episodes:
        episodes += f" (before: {before.num_episodes})"
    lines = [f"{episodes}, {100 * report.confidence:g} % intervals over episodes", str(report.protocol)]
    if np.isnan(report.success_rate).any():
        lines.append("-: the environment says nothing of success; the mean is of the others")
    return "\n".join(filter(None, lines))


@dataclass(frozen=True)
class _Curves:
    """What is drawn over steps: E evaluations of the K tasks that have something to show."""

    names: tuple[str, ...]
    measure: str
    steps: NDArray[np.float64]
    unit: str
    tasks: NDArray[np.float64]  # [E, K]
    mean: NDArray[np.float64]  # [E]
    ends: NDArray[np.float64] | None  # [E, 2]
    num_episodes: list[int]

    @classmethod
    def of(cls, history: EvaluationHistory) -> _Curves:
        shown = [i for i, when in enumerate(history.timesteps) if when not in history.timesteps[i + 1 :]]
        known = np.isfinite(history.success_rate[-1])
        by_success = bool(known.any())
        values = history.success_rate[:, known] if by_success else history.normalized_returns
        names = [name for name, told in zip(history.task_names, known, strict=True) if told or not by_success]
        steps, unit = _in_unit(history.timesteps[shown])
        return cls(
            tuple(names),
            "success rate" if by_success else "normalized return",
            steps,
            unit,
            values[shown],
            history.mean_success[shown] if by_success else values[shown].mean(axis=1),
            history.mean_intervals[shown] if by_success else None,
            history.num_episodes[shown].tolist(),
        )


def _curve_caption(curves: _Curves, history: EvaluationHistory) -> str:
    counts = curves.num_episodes
    last = f" ({counts[-1]} in the last evaluation)" if len(set(counts[:-1])) == 1 and counts[-1] != counts[0] else ""
    episodes = _episodes(counts[0]) if last or len(set(counts)) == 1 else f"{min(counts)} to {_episodes(max(counts))}"
    mean = _mean_name(curves)
    if curves.ends is None:
        how = "return on a scale from each task's lowest evaluation, 0, to its highest, 1"
    else:
        how = f"band: {100 * history.confidence:g} % interval over episodes"
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
        axes.fill_between(curves.steps, low, high, color=_BAND, alpha=0.45, linewidth=0, zorder=1)
    axes.plot(curves.steps, curves.mean, color=_INK, linewidth=2.4, zorder=4, **_dots(curves, 5))
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(curves.measure)
    _plain_axes(axes, "y")
    if len(curves.names) > _MAX_LINES:
        axes.annotate(
            f" {curves.mean[-1]:.2f}", (1.0, curves.mean[-1]), color=_INK, fontsize=10,
            fontweight="bold", xycoords=axes.get_yaxis_transform(), va="center", annotation_clip=False,
        )  # fmt: skip


def _draw_tasks(axes: Axes, curves: _Curves) -> None:
    """A thin line for each task, and at the right edge the names, led to their lines where these meet."""
    styles: list[Any] = ["-" if k < 6 else (0, (4, 1.5)) for k in range(len(curves.names))]
    for k, style in enumerate(styles):
        values = curves.tasks[:, k]
        axes.plot(curves.steps, values, color=PALETTE[k], linewidth=1.2, linestyle=style, **_dots(curves, 3))
    ends = [*curves.tasks[-1], float(curves.mean[-1])]
    names = [*curves.names, _mean_name(curves)]
    heights = _spread(ends, gap=0.052)
    where = axes.get_yaxis_transform()
    for k, (name, end, height) in enumerate(zip(names, ends, heights, strict=True)):
        mean = k == len(styles)
        colour, style = (_INK, "-") if mean else (PALETTE[k], styles[k])
        width = 2.4 if mean else 1.2
        axes.plot(
            [1.0, 1.025, 1.055], [end, height, height], color=colour, linewidth=width, linestyle=style,
            transform=where, clip_on=False, solid_capstyle="butt",
        )  # fmt: skip
        axes.annotate(
            f"{end:.2f}  {name}", (1.062, height), xycoords=where, va="center", fontsize=8.5, color=_INK,
            fontweight="bold" if mean else "normal", annotation_clip=False,
        )  # fmt: skip
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


def _spread(heights: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Heights as near to the given ones as may be, at least ``gap`` apart, from -0.02 to 1.02 where they fit.

    Neighbours that collide are pooled and centred on their mean: least squares under the constraint.
    """
    # Of equal heights the first goes on top, as in a list.
    order = np.lexsort((-np.arange(len(heights)), np.asarray(heights)))
    wanted = np.asarray(heights, np.float64)[order] - gap * np.arange(len(order))
    pools: list[tuple[float, int]] = []
    for height in wanted:
        pools.append((float(height), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, m), (high, n) = pools[-2:]
            pools[-2:] = [((low * m + high * n) / (m + n), m + n)]
    top = max(1.02 - gap * (len(order) - 1), -0.02)
    placed = np.clip(np.concatenate([np.full(n, height) for height, n in pools]), -0.02, top)
    found = np.empty(len(order))
    found[order] = placed + gap * np.arange(len(order))
    return found


def _rates_and_ends(report: SuccessReport, order: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rates ``[K + 1]`` and intervals ``[K + 1, 2]`` in the given order, the mean last."""
    rates = np.append(report.success_rate[order], report.mean_success)
    return rates, np.vstack([report.intervals[order], report.mean_interval])


def _draw_intervals(
    axes: Axes,
    places: Sequence[float],
    rates: NDArray[Any],
    ends: NDArray[Any],
    colour: str,
    circles: str | None,
) -> None:
    # Rounding may put an end a hair beyond its rate, which errorbar refuses; NaN (no interval) draws nothing.
    sides = np.maximum(np.stack([rates - ends[:, 0], ends[:, 1] - rates]), 0.0)
    style = {"fmt": "o", "mfc": "white", "ms": 4.5, "label": circles} if circles else {"fmt": "none"}
    axes.errorbar(rates, places, xerr=sides, color=colour, elinewidth=1.0, capsize=2, clip_on=False, **style)


def _in_unit(timesteps: NDArray[np.int64]) -> tuple[NDArray[np.float64], str]:
    """Steps in the unit in which they read best, and its name for the axis."""
    last = int(timesteps[-1])
    scale, name = (1e6, " (millions)") if last >= 1e6 else (1e3, " (thousands)") if last >= 1e4 else (1, "")
    return timesteps / scale, name


def _plain_axes(axes: Axes, grid: Literal["x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_QUIET, labelcolor=_INK)


def _entitle(axes: Axes, parts: Sequence[str], detail: str) -> None:
    title = "  ·  ".join(part for part in parts if part)
    axes.set_title(detail, loc="left", fontsize=9, color=_QUIET)
    if title:
        above = 8 + 12 * len(detail.splitlines())
        axes.annotate(
            title, (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", fontsize=12.5,
            fontweight="bold", color=_INK, va="bottom", annotation_clip=False,
        )  # fmt: skip


def _seed(seed: int | None) -> str:
    return "" if seed is None else f"seed {seed}"


def _episodes(count: int) -> str:
    return f"{count} episode{'s' if count > 1 else ''}"


def _save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", facecolor="white")
    return path
