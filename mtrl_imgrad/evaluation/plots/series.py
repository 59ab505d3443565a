"""Runs of one method as curves over steps: the seeds' mean, its band, and each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.statistics import stratified_bootstrap, success_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A curve over the steps that all its seeds have reached, and the seeds themselves to their ends.

    Attributes:
        steps: ``[E]`` environment steps, from the first common one to the last.
        mean: ``[E]`` mean over seeds.
        band: ``[E, 2]`` lower and upper end; NaN where there is none.
        seeds: steps ``[E_s]`` and values ``[E_s]`` of each seed.
    """

    steps: Floats
    mean: Floats
    band: Floats
    seeds: tuple[tuple[Floats, Floats], ...]

    @property
    def end(self) -> float:
        """The mean at the last step that all seeds have reached."""
        return float(self.mean[-1])


def mean_series(histories: Sequence[EvaluationHistory], tasks: NDArray[np.bool_], confidence: float) -> Series:
    """Mean success over tasks: the band is an interval over seeds, or of one seed that over its episodes.

    Args:
        histories: a seed each.
        tasks: ``[K]``, which of them have a notion of success.
        confidence: of the intervals.
    """
    shown = [last_at_each_step(history) for history in histories]
    rates = [(history.timesteps[rows].astype(float), history.success_rate[rows][:, tasks])
             for history, rows in zip(histories, shown, strict=True)]  # fmt: skip
    seeds = tuple((steps, values.mean(axis=1)) for steps, values in rates)
    if len(histories) == 1:
        reports = [histories[0].reports[row] for row in shown[0]]
        band = np.array([success_interval(report.successes[tasks], confidence) for report in reports])
        return Series(*seeds[0], band, seeds)
    grid = _common_steps([steps for steps, _ in rates])
    scores = np.stack([_at(grid, steps, values) for steps, values in rates], axis=1)  # [E, seeds, tasks]
    band = np.array([stratified_bootstrap(row, confidence=confidence) for row in scores])
    return Series(grid, scores.mean(axis=(1, 2)), band, seeds)


def task_series(histories: Sequence[EvaluationHistory], task: int, returns: bool = False) -> Series:
    """One task: the band is the lowest to the highest seed, or of one seed the interval over its episodes.

    Args:
        histories: a seed each.
        task: its number.
        returns: mean returns in place of success rates.
    """
    shown = [last_at_each_step(history) for history in histories]
    seeds = tuple(
        (history.timesteps[rows].astype(float), _task_values(history, rows, task, returns))
        for history, rows in zip(histories, shown, strict=True)
    )
    if len(histories) == 1:
        steps, values = seeds[0]
        ends = [np.full(2, np.nan) if returns else histories[0].reports[row].intervals[task] for row in shown[0]]
        return Series(steps, values, np.array(ends).reshape(-1, 2), seeds)
    grid = _common_steps([steps for steps, _ in seeds])
    scores = np.stack([_at(grid, steps, values[:, None])[:, 0] for steps, values in seeds], axis=1)
    return Series(grid, scores.mean(axis=1), np.stack([scores.min(axis=1), scores.max(axis=1)], axis=1), seeds)


def last_at_each_step(history: EvaluationHistory) -> list[int]:
    """Which evaluations are shown: of several at the same step the last."""
    later = np.append(history.timesteps[1:], -1)
    return np.flatnonzero(history.timesteps != later).tolist()


def in_unit(last: float) -> tuple[float, str]:
    """The unit in which steps up to ``last`` read best, and its name for the axis."""
    return (1e6, " (millions)") if last >= 1e6 else (1e3, " (thousands)") if last >= 1e4 else (1.0, "")


def _task_values(history: EvaluationHistory, rows: list[int], task: int, returns: bool) -> Floats:
    if returns:
        return np.array([history.reports[row].returns[task].mean() for row in rows])
    return history.success_rate[rows, task]


def _common_steps(steps: Sequence[Floats]) -> Floats:
    """All steps at which a seed was evaluated, within the range that every seed has."""
    first, last = max(one[0] for one in steps), min(one[-1] for one in steps)
    if first > last:
        raise ArgumentError(f"seeds of one method must share a range of steps, but one begins at {first:g} where "
                            f"another ends at {last:g}")  # fmt: skip
    every = np.unique(np.concatenate(steps))
    return every[(every >= first) & (every <= last)]


def _at(grid: Floats, steps: Floats, values: NDArray[Any]) -> Floats:
    """``values`` ``[E_s, N]`` at the steps of ``grid``, on straight lines between evaluations."""
    return np.stack([np.interp(grid, steps, column) for column in values.T], axis=1)
