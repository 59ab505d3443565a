"""Intervals and aggregates for success rates: what the numbers say and how far they can be trusted.

Two different questions, two different intervals:

* *How well does this one agent do?* Its episodes are the sample: `wilson_interval` for a task,
  `success_interval` for the mean over tasks.
* *How well does this method do?* Independently trained agents (seeds) are the sample: `aggregate_runs`. The
  first kind of interval says nothing about the second question, however many episodes it rests on.

Everything here is deterministic: each function makes its own generator from its ``seed``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.validation import Count, Fraction, Seed, checked

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
Resample = Literal["within_task", "runs"]
Confidence = Fraction
"""Two-sided level of an interval."""

CHUNK = 2_000_000
"""Scores resampled at a time: bounds the memory of a bootstrap to some tens of megabytes."""


class Interval(NamedTuple):
    """A confidence interval; both ends are NaN where the sample (one run) cannot give one."""

    low: float
    high: float


@checked
def wilson_interval(successes: ArrayLike, trials: ArrayLike, confidence: Confidence = 0.95) -> Floats:
    """Wilson's score interval for a binomial proportion, without continuity correction.

    Unlike the textbook interval it stays inside [0, 1] and does not collapse at 0 or n successes, which is
    where most tasks of a trained agent are. Source: E. B. Wilson, "Probable inference, the law of succession,
    and statistical inference", JASA 22 (1927); recommended by Brown, Cai and DasGupta, Stat. Sci. 16 (2001).

    Args:
        successes: ``[...]`` whole numbers between 0 and ``trials``.
        trials: ``[...]`` whole numbers of at least 1; broadcast against ``successes``.
        confidence: two-sided level, strictly between 0 and 1.

    Returns:
        ``[..., 2]`` float64: lower and upper end.

    Raises:
        ArgumentError: if a count is not whole, negative, above its trials, or there is no trial.

    >>> wilson_interval(10, 10).round(4).tolist()
    [0.7225, 1.0]
    """
    pair = as_array("successes", successes), as_array("trials", trials)
    try:
        hits, n = np.broadcast_arrays(*pair)
    except ValueError as error:
        raise ArgumentError(f"successes and trials must go together: {error}") from None
    for name, counts in (("successes", hits), ("trials", n)):
        if not (np.isfinite(counts).all() and (counts == np.floor(counts)).all()):
            raise ArgumentError(f"{name} must hold whole numbers, got {counts.tolist()}")
    if not ((n >= 1).all() and (hits >= 0).all() and (hits <= n).all()):
        raise ArgumentError(f"need 0 <= successes <= trials >= 1, got {hits.tolist()} of {n.tolist()}")
    return _score_interval(hits / n, n, NormalDist().inv_cdf(0.5 + confidence / 2))


@checked
def success_interval(successes: ArrayLike, confidence: Confidence = 0.95) -> Interval:
    """Interval of the mean success of one agent over its tasks: Wilson's, less the variance between tasks.

    The mean m of N = K n episodes, n of each of K tasks, varies by ``(m (1 - m) - v) / N``, where v is the
    variance of the tasks' success rates (a stratified sample: W. G. Cochran, *Sampling Techniques*, ch. 5).
    The interval holds every mean that a score test does not reject, as Wilson's does::

        N (mean - m)^2 <= z^2 (m (1 - m) - v),   v = (n / (n + z^2))^2 Var_k(rate_k)

    Rates from few episodes differ by chance too, so v is taken from rates drawn towards 1/2 by z^2 episodes
    (A. Agresti, B. A. Coull, Am. Stat. 52, 1998). This makes the interval rather too wide than too narrow, and
    it has a width where every task has only successes or only failures, where a bootstrap has none. For one
    task it is `wilson_interval`; where all tasks have the same rate it is Wilson's of N episodes.

    The tasks are taken as given: nothing is said about other tasks, nor about other seeds.

    Args:
        successes: ``[K, n]`` booleans, n episodes for each of K tasks.
        confidence: two-sided level, strictly between 0 and 1.

    Returns:
        `Interval`, within [0, 1].

    Raises:
        ArgumentError: if ``successes`` is not a boolean matrix, or the level is out of range.

    >>> [round(end, 3) for end in success_interval(np.zeros((10, 5), bool))]
    [0.0, 0.071]
    """
    hits = np.asarray(successes)
    if hits.ndim != 2 or hits.size == 0 or hits.dtype != np.bool_:
        raise ArgumentError(f"successes must be bool [tasks, episodes], got {hits.dtype} {hits.shape}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    episodes = hits.shape[1]
    between = (episodes / (episodes + z * z)) ** 2 * hits.mean(axis=1).var()
    low, high = _score_interval(np.asarray(hits.mean()), np.asarray(hits.size), z, between)
    return Interval(float(low), float(high))


@checked
def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Floats:
    """Mean of the middle half, with fractional weights where a quarter is not a whole number of values.

    Robust to a few failed or lucky runs, and less wasteful than the median. Source: Agarwal et al., "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, arXiv:2108.13264. Their
    code cuts ``int(N / 4)`` values from each end; that is the same where 4 divides N.

    Args:
        values: any shape, finite.
        axis: axis to reduce; None (default) takes all values together, as for a run x task matrix.

    Returns:
        ``values`` without ``axis``; a scalar array for None.

    Raises:
        ArgumentError: if there is no value.
        NonFiniteError: if a value is NaN or infinite.

    >>> float(interquartile_mean([0, 1, 2, 9]))
    1.5
    """
    scores = as_array("values", values)
    if scores.size == 0:
        raise ArgumentError("values must not be empty")
    if not np.isfinite(scores).all():
        raise NonFiniteError("values hold a NaN or an infinity")
    return _iqm_of_last(scores.reshape(-1) if axis is None else np.moveaxis(scores, axis, -1))


@checked
def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Statistic | None = None,
    *,
    confidence: Confidence = 0.95,
    resamples: Count = 2000,
    resample: Resample = "within_task",
    seed: Seed = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of a run x task matrix.

    Args:
        scores: ``[runs, tasks]``, finite: one row for each independently trained agent.
        statistic: maps ``[B, runs, tasks]`` to ``[B]``; None is the mean of all scores.
        confidence: two-sided level, strictly between 0 and 1.
        resamples: number of bootstrap draws.
        resample: ``"within_task"`` draws the runs of every task independently (arXiv:2108.13264, and what
            published Meta-World intervals are). ``"runs"`` draws whole rows: the tasks of one agent share a
            network, and where they rise and fall together the first way is too narrow and this one is not.
        seed: of the draws.

    Returns:
        `Interval`; NaN for a single run, which tells nothing about other runs. Without width where all runs agree:
        resampling cannot see what never happened.

    Raises:
        ArgumentError: if a shape or an option is wrong.
        NonFiniteError: if a score is NaN or infinite; names run and task.
    """
    matrix = score_matrix(scores)
    runs, tasks = matrix.shape
    if runs == 1:
        return Interval(np.nan, np.nan)
    rng = np.random.default_rng(seed)
    columns = tasks if resample == "within_task" else 1
    step = max(1, CHUNK // matrix.size)
    statistics = []
    for start in range(0, resamples, step):
        rows = rng.integers(runs, size=(min(step, resamples - start), runs, columns))
        statistics.append((statistic or _mean)(matrix[rows, np.arange(tasks)]))
    return percentiles(np.concatenate(statistics), confidence)


@dataclass(frozen=True)
class Aggregate:
    """Mean and interquartile mean of a run x task matrix, each with its interval.

    Attributes:
        mean: mean of all scores.
        mean_interval: its interval, see `aggregate_runs`.
        iqm: interquartile mean of all scores.
        iqm_interval: its interval.
        confidence: level of both intervals.
        num_runs: rows of the matrix.
        num_tasks: columns of the matrix.
    """

    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval
    confidence: float
    num_runs: int
    num_tasks: int

    def __str__(self) -> str:
        mean = f"mean {self.mean:.3f} [{self.mean_interval.low:.3f}, {self.mean_interval.high:.3f}]"
        iqm = f"IQM {self.iqm:.3f} [{self.iqm_interval.low:.3f}, {self.iqm_interval.high:.3f}]"
        sample = f"{self.num_runs} runs x {self.num_tasks} tasks"
        return f"{mean}, {iqm} ({sample}, {100 * self.confidence:g} % intervals over runs)"


@checked
def aggregate_runs(
    scores: ArrayLike,
    *,
    confidence: Confidence = 0.95,
    resamples: Count = 2000,
    resample: Resample = "within_task",
    seed: Seed = 0,
) -> Aggregate:
    """Mean and interquartile mean over runs and tasks with bootstrap intervals, as Meta-World+ reports them.

    Where all resamples agree (ten seeds, each at 100 %), a bootstrap interval is a point, as if an eleventh seed could
    not fail. The interval is then an exact binomial bound: what R runs never showed has a probability of at most
    ``p = 1 - (1 - confidence)^(1/R)`` a run (the "rule of three", about 3/R at 95 %; C. J. Clopper, E. S. Pearson,
    Biometrika 26, 1934). Its ends are the statistic with a share p of 0 or of 1 among the scores: [0.74, 1] for ten
    runs at 100 %. Scores outside [0, 1] have no such worst case, and the interval is NaN.

    Args:
        scores: ``[runs, tasks]``, for instance the final success rates of ten seeds on ten tasks.
        confidence: two-sided level of the intervals.
        resamples: number of bootstrap draws.
        resample: see `stratified_bootstrap`.
        seed: of the draws.

    Raises:
        ArgumentError: if a shape or an option is wrong.
        NonFiniteError: if a score is NaN or infinite; names run and task.
    """
    matrix = score_matrix(scores)

    def interval(statistic: Statistic, weighted: Callable[[Floats, Floats], float]) -> Interval:
        bootstrap = stratified_bootstrap(
            matrix, statistic, confidence=confidence, resamples=resamples, resample=resample, seed=seed
        )
        agree = bootstrap.high - bootstrap.low < 1e-12  # rounding aside; False for the NaN of a single run
        return _unseen_interval(matrix, weighted, confidence) if agree else bootstrap

    return Aggregate(
        mean=float(matrix.mean()),
        mean_interval=interval(_mean, _weighted_mean),
        iqm=float(interquartile_mean(matrix)),
        iqm_interval=interval(_iqm, _weighted_iqm),
        confidence=confidence,
        num_runs=matrix.shape[0],
        num_tasks=matrix.shape[1],
    )


def _score_interval(rate: Floats, n: NDArray, z: float, between: float = 0.0) -> Floats:
    """The p with ``n (rate - p)^2 <= z^2 (p (1 - p) - between)``, ``[..., 2]``: roots of a quadratic."""
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * np.sqrt(rate * (1 - rate) / n - between * shrink / n + z * z / (4 * n * n))
    # At the ends the formula is exactly 0 and 1, but for rounding.
    low = np.where(rate == 0, 0.0, centre - half)
    high = np.where(rate == 1, 1.0, centre + half)
    return np.stack([low, high], axis=-1)


def _mean(samples: Floats) -> Floats:
    return samples.mean(axis=(-2, -1))


def _iqm(samples: Floats) -> Floats:
    return _iqm_of_last(samples.reshape(*samples.shape[:-2], -1))


def _iqm_of_last(values: Floats) -> Floats:
    # The i-th smallest of N values stands for the quantiles from i/N to (i+1)/N; its weight is how much of
    # that lies between the quartiles.
    edges = np.clip(np.linspace(0.0, 1.0, values.shape[-1] + 1), 0.25, 0.75)
    return np.asarray(np.sort(values, axis=-1) @ np.diff(edges) / 0.5)


def _unseen_interval(scores: Floats, statistic: Callable[[Floats, Floats], float], confidence: float) -> Interval:
    """Ends of a statistic if what the runs never showed is all 0, or all 1; see `aggregate_runs`."""
    if scores.min() < 0 or scores.max() > 1:
        return Interval(np.nan, np.nan)
    unseen = 1 - (1 - confidence) ** (1 / len(scores))
    weights = np.append(np.full(scores.size, (1 - unseen) / scores.size), unseen)
    low, high = (statistic(np.append(scores, worst), weights) for worst in (0.0, 1.0))
    return Interval(low, high)


def _weighted_mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights)


def _weighted_iqm(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    edges = np.clip(np.concatenate([[0.0], np.cumsum(weights[order])]), 0.25, 0.75)
    return float(values[order] @ np.diff(edges) / 0.5)


def percentiles(samples: Floats, confidence: float) -> Interval:
    """The middle ``confidence`` of samples ``[B]``."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(float(low), float(high))


def as_array(name: str, values: ArrayLike, dtype: type[np.generic] = np.float64) -> NDArray:
    """``values`` as an array of numbers."""
    try:
        return np.asarray(values, dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must be an array of numbers: {error}") from None


def score_matrix(scores: ArrayLike, name: str = "scores") -> Floats:
    """Scores as a finite matrix ``[runs, tasks]``."""
    matrix = as_array(name, scores)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ArgumentError(f"{name} must be [runs, tasks] and not empty, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        run, task = np.argwhere(~np.isfinite(matrix))[0]
        raise NonFiniteError(f"{name} must be finite: the score of run {run} on task {task} is {matrix[run, task]}")
    return matrix
