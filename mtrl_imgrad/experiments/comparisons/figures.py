"""Figures of finished runs: success against steps and time, tasks, profiles, setbacks, and what the logs show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.method_statistics import performance_profile
from mtrl_imgrad.evaluation.plots import success_curves, task_curves
from mtrl_imgrad.evaluation.plots.panels import STEPS
from mtrl_imgrad.experiments.comparisons.records import Against, RunRecord, by_method
from mtrl_imgrad.experiments.comparisons.training_figures import NamedFigure, training_figures
from mtrl_imgrad.reporting.figures import line_style, new_figure, plain_axes, save_figure

Format = Literal["png", "pdf", "svg"]
AXES: dict[Against, str] = {
    "timesteps": STEPS,
    "wall_seconds": "seconds of learning, wall clock",
    "cpu_seconds": "seconds of learning, CPU time",
}


def draw_figures(records: Sequence[RunRecord], folder: Path, fmt: Format = "png") -> dict[Path, str]:
    """Draw all figures that the runs have data for.

    Args:
        records: finished runs of the same tasks.
        folder: to write to.
        fmt: of the files.

    Returns:
        The files with a line each on what they show.
    """
    drawn = {}
    for name, what, draw in _figures(records):
        figure = draw()
        if figure is not None:
            drawn[save_figure(figure, folder / f"{name}.{fmt}")] = what
    return drawn


def _figures(records: Sequence[RunRecord]) -> Iterator[NamedFigure]:
    known = not np.isnan(records[0].final).any()
    clocked = all(None not in record.data["curve"]["cpu_seconds"] for record in records)
    if known:
        yield "success_steps", "Success against environment steps.", lambda: _success(records, "timesteps")
    if known and clocked:
        yield "success_wall", "Success against wall clock.", lambda: _success(records, "wall_seconds")
        yield "success_cpu", "Success against CPU time.", lambda: _success(records, "cpu_seconds")
    measure: Literal["success", "return"] = "success" if known else "return"
    yield "tasks", "Every task by itself.", lambda: task_curves(_histories(records, "timesteps"), measure=measure)
    if known:
        yield "profile", "Share of runs and tasks above a success rate.", lambda: _profile(records)
    yield from training_figures(records)
    text = "Setbacks: share of tasks whose mean return is lower than in the evaluation before."
    yield "setbacks", text, lambda: _setbacks(records)


def _histories(records: Sequence[RunRecord], against: Against) -> dict[str, list]:
    return {method: [run.history(against) for run in runs] for method, runs in by_method(records).items()}


def _success(records: Sequence[RunRecord], against: Against) -> Figure:
    figure = success_curves(_histories(records, against))
    axes = figure.axes[0]
    axes.set_xlabel(axes.get_xlabel().replace(STEPS, AXES[against]))
    return figure


def _profile(records: Sequence[RunRecord]) -> Figure:
    figure = new_figure(6.4, 3.8)
    axes = figure.add_subplot()
    thresholds = np.linspace(0, 1, 51)
    for i, (method, runs) in enumerate(by_method(records).items()):
        shares, band = performance_profile(np.stack([run.final for run in runs]), thresholds, resamples=500)
        style = line_style(i)
        axes.step(thresholds, shares, where="post", label=method, linewidth=1.6, **style)
        if np.isfinite(band).all():
            axes.fill_between(
                thresholds, band[:, 0], band[:, 1], step="post", color=style["color"], alpha=0.15, linewidth=0
            )
    axes.set_xlabel("success rate τ")
    axes.set_ylabel("share of runs and tasks above τ")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes, "y")
    return figure


def _setbacks(records: Sequence[RunRecord]) -> Figure | None:
    shares: dict[str, float] = {}
    for method, runs in by_method(records).items():
        returns = [np.array(run.data["curve"]["returns"], dtype=np.float64) for run in runs]
        falls = [np.diff(one[:-1], axis=0) < 0 for one in returns if len(one) > 2]  # the last two are of one step
        if falls:
            shares[method] = float(np.mean(np.concatenate(falls)))
    if not shares:
        return None
    figure = new_figure(6.4, 1.0 + 0.32 * len(shares))
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=line_style(0)["color"], height=0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of tasks whose mean return fell since the evaluation before")
    plain_axes(axes, "x")
    return figure


def refuse_too_many(records: Sequence[RunRecord]) -> None:
    """Raise where a figure would have more lines than colours."""
    if len(by_method(records)) > 12:
        raise ArgumentError(f"figures hold up to 12 methods, got {len(by_method(records))}: choose with --methods")
