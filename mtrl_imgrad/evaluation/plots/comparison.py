"""Several methods, each of several seeds, in one figure: mean success, and every task in a panel of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.plots.panels import STEPS, draw_series, task_grid
from mtrl_imgrad.evaluation.plots.series import Series, in_unit, mean_series, task_series
from mtrl_imgrad.evaluation.plots.titles import DPI, name_ends, set_titles
from mtrl_imgrad.evaluation.statistics import Confidence
from mtrl_imgrad.reporting.figures import INK, PALETTE, line_style, new_figure, plain_axes
from mtrl_imgrad.validation import checked

Runs = Mapping[str, Sequence[EvaluationHistory]]


@checked
def success_curves(runs: Runs, *, title: str = "", confidence: Confidence = 0.95) -> Figure:
    """Mean success over environment steps: a line for each method, its seeds as a band.

    The mean goes from the first to the last step that all seeds of the method have; thin lines are the seeds, each to
    its own ends. Between two evaluations values lie on straight lines, so seeds may be evaluated at different steps. Of
    several evaluations at the same step the last is drawn. The band is `stratified_bootstrap` over seeds, as in tables,
    without width where all seeds agree. Where every method has a single seed, it is the interval over its episodes,
    which says nothing of other seeds: the caption tells which.

    Args:
        runs: label to the histories of its seeds, 1 to 12 labels; all of the same tasks.
        title: above the figure, for instance ``"MT10"``.
        confidence: level of the intervals.

    Returns:
        The figure, for `mtrl_imgrad.reporting.figures.save_figure`.

    Raises:
        ArgumentError: if there is no label or too many, one without an evaluation, or no task has a notion of success.
        TaskMismatchError: if the histories are not all of the same tasks.
    """
    known = _check(runs)
    if not known.any():
        raise ArgumentError("runs must have a task with a notion of success, got none; task_curves draws returns")
    series = [mean_series(histories, known, confidence) for histories in runs.values()]
    figure = new_figure(7.6, 4.4, DPI)
    axes = figure.add_subplot()
    scale, unit = _draw_all(axes, series, seeds=True)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("success rate")
    axes.set_xlabel(f"{STEPS}{unit}")
    plain_axes(axes, "y")
    styles = [line_style(i) for i in range(len(series))]
    for one, style in zip(series, styles, strict=True):  # from a method that ended early to its name
        axes.plot([one.steps[-1] / scale, axes.get_xlim()[1]], [one.end] * 2, color=style["color"], linestyle=":",
                  linewidth=0.9)  # fmt: skip
    name_ends(axes, [one.end for one in series], _labels(runs), styles)
    set_titles(axes, _mean_caption(runs, known, confidence), title, "", None)
    return figure


@checked
def task_curves(runs: Runs, *, title: str = "", measure: Literal["success", "return"] = "success") -> Figure:
    """Every task in a panel of its own, named as in the tables: a line for each method, its seeds as a band.

    The band goes from the lowest to the highest seed; where every method has a single one, it is the interval over its
    episodes.

    Args:
        runs: label to the histories of its seeds, 1 to 12 labels; all of the same tasks.
        title: above the figure.
        measure: ``"success"``, which leaves out tasks without a notion of it, or ``"return"``, each panel with a scale
            of its own.

    Returns:
        The figure, for `mtrl_imgrad.reporting.figures.save_figure`.

    Raises:
        ArgumentError: as `success_curves`.
        TaskMismatchError: if the histories are not all of the same tasks.
    """
    known = _check(runs)
    returns = measure == "return"
    tasks = np.arange(len(known)) if returns else np.flatnonzero(known)
    if not len(tasks):
        raise ArgumentError("runs must have a task with a notion of success, got none; measure='return' draws returns")
    names = next(iter(runs.values()))[0].task_names
    figure, panels = task_grid([names[k] for k in tasks], share_y=not returns)
    for task, axes in zip(tasks.tolist(), panels, strict=True):
        series = [task_series(histories, task, returns) for histories in runs.values()]
        _, unit = _draw_all(axes, series, seeds=len(runs) == 1)  # of several methods they would be a tangle
    caption = _task_caption(runs, returns)
    figure.supxlabel("\n".join(filter(None, [f"{STEPS}{unit}", caption])), fontsize=9)
    figure.supylabel("mean return" if returns else "success rate", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    lines = [line for line in panels[0].get_lines() if line.get_marker() == "o"]
    figure.legend(lines, _labels(runs), loc="outside upper right", ncols=min(len(runs), 4), frameon=False, fontsize=9)
    return figure


def _check(runs: Runs) -> NDArray[np.bool_]:
    """Which tasks have a notion of success, ``[K]``, in all runs alike."""
    if not 1 <= len(runs) <= len(PALETTE):
        raise ArgumentError(f"runs must have 1 to {len(PALETTE)} labels, got {len(runs)}")
    for label, histories in runs.items():
        if not histories or not all(len(history) for history in histories):
            raise ArgumentError(f"runs[{label!r}] must hold histories of at least one evaluation each")
    every = [(label, history) for label, histories in runs.items() for history in histories]
    label, first = every[0]
    for other, history in every[1:]:
        if history.task_names != first.task_names:
            raise TaskMismatchError(
                f"runs[{label!r}] is of {first.task_names}, runs[{other!r}] of {history.task_names}"
            )
    known = np.array([history.reports[0].has_success for _, history in every])
    return np.asarray(known.all(axis=0))


def _draw_all(axes: Axes, series: Sequence[Series], seeds: bool) -> tuple[float, str]:
    """A line for each method; returns the unit of the steps and its name."""
    last = max(float(steps[-1]) for one in series for steps, _ in one.seeds)
    scale, unit = in_unit(last)
    several = any(len(one.seeds) > 1 for one in series)
    for i, one in enumerate(series):
        if several and len(one.seeds) == 1:  # beside bands over seeds, that over episodes would be read as one
            one = replace(one, band=np.full_like(one.band, np.nan))
        draw_series(axes, one, line_style(i), scale, seeds=seeds)
    axes.set_xlim(0, last / scale or 1.0)
    return scale, unit


def _labels(runs: Runs) -> list[str]:
    """Labels with their number of seeds."""
    return [f"{label} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})" for label, seeds in runs.items()]


def _mean_caption(runs: Runs, known: NDArray[np.bool_], confidence: float) -> str:
    count = int(known.sum())
    many = _has_seeds(runs)
    band = f"{100 * confidence:g} % interval over {'seeds' if many else 'episodes'}"
    lines = [
        f"mean of {count} task{'s' if count > 1 else ''}, band: {band}",
        "thin lines: seeds" if many else "",
    ]
    if not known.all():
        lines.append(f"without {int((~known).sum())} of {len(known)} tasks, which say nothing of success")
    return "\n".join(filter(None, lines))


def _task_caption(runs: Runs, returns: bool) -> str:
    if _has_seeds(runs):
        return "band: lowest to highest seed"
    return "" if returns else "band: the interval over episodes"


def _has_seeds(runs: Runs) -> bool:
    """Whether a label has several."""
    return any(len(seeds) > 1 for seeds in runs.values())
