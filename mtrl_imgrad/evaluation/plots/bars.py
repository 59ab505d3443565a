"""Success of every task as bars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.plots.titles import DPI, count_episodes, set_titles
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.reporting.figures import BAND, INK, new_figure, plain_axes, save_figure
from mtrl_imgrad.validation import checked


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
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.
        env: for the title.
        combiner: for the title.
        seed: for the title.

    Returns:
        The path of the picture.

    Raises:
        ArgumentError: if no task has a notion of success.
        TaskMismatchError: if ``before`` is of other tasks.
    """
    if np.isnan(report.mean_success):
        raise ArgumentError("report must have a task with a notion of success, got none: there are no rates to draw")
    if before is not None and before.task_names != report.task_names:
        raise TaskMismatchError(f"before is of {before.task_names}, the report of {report.task_names}")
    order = np.argsort(-report.success_rate, kind="stable")
    figure = new_figure(8.0, 1.6 + 0.27 * (len(order) + 1), DPI)
    axes = figure.add_subplot()
    places = [*range(len(order)), len(order) + 0.4]
    rates, ends = _rates_and_ends(report, order)
    colours = [BAND] * len(order) + ["#4A7FB5"]
    axes.barh(places, rates, height=0.72, color=colours, label="after" if before else None)
    _draw_intervals(axes, places, rates, ends, INK, None)
    if before is not None:
        old, old_ends = _rates_and_ends(before, order)
        _draw_intervals(axes, [place + 0.2 for place in places], old, old_ends, "#B4561B", "before")
        figure.legend(loc="upper right", ncols=2, frameon=False, fontsize=9)  # beside the title
    axes.set_yticks(places, [*(report.task_names[k] for k in order), "mean"], fontsize=9)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_ylim(places[-1] + 0.6, -0.6)
    for place, rate in zip(places, rates, strict=True):
        axes.text(1.02, place, "-" if np.isnan(rate) else f"{rate:.2f}", va="center_baseline", fontsize=9, color=INK)
    axes.set_xlim(0, 1)
    plain_axes(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("success rate")
    detail = _bar_caption(report, before)
    set_titles(axes, detail, env, combiner, seed)
    return save_figure(figure, path)


def _bar_caption(report: SuccessReport, before: SuccessReport | None) -> str:
    episodes = f"{count_episodes(report.num_episodes)} a task"
    if before is not None and before.num_episodes != report.num_episodes:
        episodes += f" (before: {before.num_episodes})"
    lines = [f"{episodes}, {100 * report.confidence:g} % intervals over episodes", str(report.protocol)]
    if np.isnan(report.success_rate).any():
        lines.append("-: the environment says nothing of success; the mean is of the others")
    return "\n".join(filter(None, lines))


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
