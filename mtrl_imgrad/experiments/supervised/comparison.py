"""One number for a method: relative change against single-task networks, or rank among methods.

Results are ``{task: {metric: value}}`` throughout, as `MetricSet.compute` and `published_rows` give them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, NonFiniteError, TaskMismatchError
from mtrl_imgrad.validation import checked

Results = Mapping[str, Mapping[str, float]]
"""``{task: {metric: value}}``."""
Signs = Mapping[str, Mapping[str, bool]]
"""``{task: {metric: whether higher is better}}``."""


@checked
def delta_m(results: Results, baselines: Results, higher_is_better: Signs) -> float:
    """Mean relative change over all **metrics**, in per cent; **negative is better**.

    ``100 / n * sum_i (-1)^{s_i} (M_i - B_i) / B_i`` with s_i = 1 where higher is better (Maninis, Radosavovic,
    Kokkinos, CVPR 2019, arXiv 1904.08918; the sign as in CAGrad's tables). A task with many metrics counts more.

    Args:
        results: of the method.
        baselines: of single-task networks.
        higher_is_better: for every metric.

    Returns:
        Per cent; NaN if a metric is NaN.

    Raises:
        TaskMismatchError: if the three are not of the same tasks and metrics.
        ArgumentError: if a baseline is 0: nothing is relative to it.
    """
    gains = _relative_gains(results, baselines, higher_is_better)
    return -100 * float(np.concatenate(list(gains.values())).mean())


@checked
def delta_p(results: Results, baselines: Results, higher_is_better: Signs) -> float:
    """Mean over **tasks** of the mean relative gain of a task's metrics, in per cent; **positive is better**.

    The measure of LibMTL (Lin and Zhang, JMLR 2023, arXiv 2203.14338). Arguments, returns and errors: see `delta_m`.
    """
    gains = _relative_gains(results, baselines, higher_is_better)
    return 100 * float(np.mean([gain.mean() for gain in gains.values()]))


@checked
def mean_rank(rows: Mapping[str, Results], higher_is_better: Signs) -> dict[str, float]:
    """Mean over all metrics of a method's rank among the methods compared; 1 is best, ties share their mean rank.

    It depends on who is compared: ranks of different tables say nothing about each other.

    Args:
        rows: results by method.
        higher_is_better: for every metric.

    Raises:
        ArgumentError: for no method.
        TaskMismatchError: if a row is not of the tasks and metrics of ``higher_is_better``.
        NonFiniteError: if a metric is not finite: it has no rank.
    """
    if not rows:
        raise ArgumentError("rows must hold at least one method, got none")
    values = [_flat(row, higher_is_better, f"method {method!r}") for method, row in rows.items()]
    for method, row in zip(rows, values, strict=True):
        if not np.isfinite(row).all():
            raise NonFiniteError(f"method {method!r} has a metric that is not finite, so that it has no rank")
    from scipy.stats import rankdata

    scores = np.stack(values) * _directions(higher_is_better)
    return dict(zip(rows, rankdata(-scores, axis=0).mean(axis=1).tolist(), strict=True))


def _relative_gains(results: Results, baselines: Results, signs: Signs) -> dict[str, NDArray[np.float64]]:
    """By task: ``(M - B) / B`` of its metrics, with the sign that makes positive better."""
    ours, theirs = _flat(results, signs, "results"), _flat(baselines, signs, "baselines")
    names = [f"{task}/{metric}" for task in signs for metric in signs[task]]
    zero = [name for name, value in zip(names, theirs, strict=True) if value == 0]
    if zero:
        raise ArgumentError(f"baselines must not be 0, got 0 for {', '.join(zero)}")
    gains = _directions(signs) * (ours - theirs) / theirs
    ends = np.cumsum([len(task) for task in signs.values()])[:-1]
    return dict(zip(signs, np.split(gains, ends), strict=True))


def _directions(signs: Signs) -> NDArray[np.int64]:
    """1 where higher is better, else -1, in the order of ``signs``."""
    return np.array([1 if higher else -1 for task in signs.values() for higher in task.values()])


def _flat(results: Results, signs: Signs, what: str) -> NDArray[np.float64]:
    """The values in the order of ``signs``."""
    if not signs or not all(signs.values()):
        raise ArgumentError("higher_is_better must have a metric for every task")
    if {task: set(values) for task, values in results.items()} != {task: set(values) for task, values in signs.items()}:
        raise TaskMismatchError(f"{what} must be of {_names(signs)}; got {_names(results)}")
    return np.array([results[task][metric] for task in signs for metric in signs[task]], dtype=np.float64)


def _names(table: Mapping[str, Mapping[str, object]]) -> str:
    return "; ".join(f"{task}: {', '.join(metrics)}" for task, metrics in table.items()) or "nothing"
