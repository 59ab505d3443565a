"""Methods against each other, from run x task matrices at one step: what the seeds allow to say, and what not."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.statistics import Confidence, Floats, Interval, percentiles, score_matrix
from mtrl_imgrad.validation import Count, Probability, Seed, checked

MIN_SEEDS = 3
"""Seeds below which no difference is claimed: the spread of two values says next to nothing."""
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class ProbabilityOfImprovement:
    """How likely a run of one method beats a run of another on a task drawn at random.

    Attributes:
        value: in [0, 1]; 1/2 where neither is better.
        interval: over runs.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two methods over the seeds that both have.

    Attributes:
        mean: first less second.
        interval: Student's t over the seeds; NaN for one seed.
        num_seeds: pairs.
        noise: whether the interval holds 0; None below three seeds, where no difference is claimed.
        seeds_needed: pairs at which a difference of this size and spread would be seen in four of five experiments;
            None where the mean is 0, the spread unknown, or more than ten thousand are needed.
    """

    mean: float
    interval: Interval
    num_seeds: int
    noise: bool | None
    seeds_needed: int | None


@checked
def probability_of_improvement(
    first: ArrayLike, second: ArrayLike, *, confidence: Confidence = 0.95, resamples: Count = 2000, seed: Seed = 0
) -> ProbabilityOfImprovement:
    """The mean over tasks of P(X > Y) + P(X = Y) / 2 for runs X of the first and Y of the second method.

    On each task it is the Mann-Whitney U statistic over the number of pairs (Agarwal et al., arXiv:2108.13264). The
    interval is their stratified bootstrap: the runs of each method are redrawn on every task.

    Args:
        first: ``[runs, K]`` scores of a method.
        second: ``[runs, K]`` of another; the number of runs may differ.
        confidence: two-sided level of the interval.
        resamples: number of bootstrap draws.
        seed: of the draws.

    Raises:
        ArgumentError: if a shape is wrong or the numbers of tasks differ.
        NonFiniteError: if a score is NaN or infinite.
    """
    x, y = score_matrix(first, "first"), score_matrix(second, "second")
    if x.shape[1] != y.shape[1]:
        raise ArgumentError(f"first and second must have the same tasks, got {x.shape[1]} and {y.shape[1]}")
    value = float(_improvement(x[None], y[None])[0])
    if len(x) == 1 or len(y) == 1:
        return ProbabilityOfImprovement(value, Interval(math.nan, math.nan))
    rng, tasks = np.random.default_rng(seed), np.arange(x.shape[1])
    drawn = [one[rng.integers(len(one), size=(resamples, *one.shape)), tasks] for one in (x, y)]
    return ProbabilityOfImprovement(value, percentiles(_improvement(*drawn), confidence))


@checked
def paired_difference(first: ArrayLike, second: ArrayLike, *, confidence: Confidence = 0.95) -> PairedDifference:
    """The difference of two methods, seed by seed: the same seed means the same environments and first weights.

    Args:
        first: ``[seeds]`` a number for each seed, such as the mean success over tasks.
        second: of the other method, for the same seeds in the same order.
        confidence: two-sided level of the interval.

    Raises:
        ArgumentError: if the two are not vectors of one length.
        NonFiniteError: if a number is NaN or infinite.
    """
    x, y = (score_matrix(np.asarray(one)[None], name)[0] for name, one in (("first", first), ("second", second)))
    if x.shape != y.shape:
        raise ArgumentError(f"first and second must have the same seeds, got {len(x)} and {len(y)}")
    differences = x - y
    mean, count = float(differences.mean()), len(differences)
    if count == 1:
        return PairedDifference(mean, Interval(math.nan, math.nan), 1, None, None)
    from scipy.stats import t  # a quarter of a second, for a comparison of finished runs

    deviation = float(differences.std(ddof=1))
    half = float(t.ppf(0.5 + confidence / 2, count - 1)) * deviation / math.sqrt(count)
    noise = None if count < MIN_SEEDS else abs(mean) <= half
    needed = seeds_needed(mean, deviation, confidence=confidence) if mean and deviation else None
    return PairedDifference(mean, Interval(mean - half, mean + half), count, noise, needed)


@checked
def seeds_needed(
    difference: float, deviation: float, *, confidence: Confidence = 0.95, power: Probability = 0.8
) -> int | None:
    """The smallest number of pairs at which a paired t-test sees a difference.

    Args:
        difference: true mean of the differences, not 0.
        deviation: their standard deviation, above 0.
        confidence: one less the level of the two-sided test.
        power: probability to see it.

    Returns:
        At least 3; None above ten thousand.

    Raises:
        ArgumentError: if an argument is out of range.
    """
    if not math.isfinite(difference) or difference == 0:
        raise ArgumentError(f"difference must be finite and not 0, got {difference}")
    if not math.isfinite(deviation) or deviation <= 0:
        raise ArgumentError(f"deviation must be finite and above 0, got {deviation}")
    if power >= 1:
        raise ArgumentError(f"power must be below 1, got {power}")
    effect, counts = abs(difference) / deviation, range(MIN_SEEDS, MOST_SEEDS + 1)
    # The power grows with the number of seeds.
    found = bisect.bisect_left(counts, power, key=lambda count: _power(effect, count, confidence))
    return counts[found] if found < len(counts) else None


@checked
def worst_tasks(scores: ArrayLike, k: Count) -> Floats:
    """``[runs]`` the mean of each run's ``k`` lowest scores: an agent may be good on average and have given up tasks.

    Args:
        scores: ``[runs, K]``.
        k: how many tasks, at most K.

    Raises:
        ArgumentError: if a shape is wrong, or there are fewer tasks.
        NonFiniteError: if a score is NaN or infinite.
    """
    matrix = score_matrix(scores)
    if k > matrix.shape[1]:
        raise ArgumentError(f"k must be at most the number of tasks, {matrix.shape[1]}, got {k}")
    return np.asarray(np.sort(matrix, axis=1)[:, :k].mean(axis=1))


@checked
def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    confidence: Confidence = 0.95,
    resamples: Count = 2000,
    seed: Seed = 0,
) -> tuple[Floats, Floats]:
    """The share of all runs and tasks with a score above each threshold (run-score distribution, arXiv:2108.13264).

    Args:
        scores: ``[runs, K]``.
        thresholds: ``[T]``.
        confidence: two-sided level of the band, which holds at each threshold by itself.
        resamples: number of bootstrap draws.
        seed: of the draws.

    Returns:
        ``[T]`` shares, and their band ``[T, 2]``: NaN for a single run.

    Raises:
        ArgumentError: if a shape is wrong.
        NonFiniteError: if a number is NaN or infinite.
    """
    matrix, taus = score_matrix(scores), score_matrix(np.asarray(thresholds)[None], "thresholds")[0]
    above = (matrix[..., None] > taus).astype(np.float64)  # [runs, K, T]
    shares = above.mean(axis=(0, 1))
    if len(matrix) == 1:
        return shares, np.full((len(taus), 2), np.nan)
    rng, tasks = np.random.default_rng(seed), np.arange(matrix.shape[1])
    rows = rng.integers(len(matrix), size=(resamples, *matrix.shape))
    drawn = np.stack([above[rows[i], tasks].mean(axis=(0, 1)) for i in range(resamples)])
    tail = (1 - confidence) / 2
    return shares, np.quantile(drawn, [tail, 1 - tail], axis=0).T


def _improvement(x: Floats, y: Floats) -> Floats:
    """``[B]`` for ``[B, runs, K]`` each."""
    pairs = x[:, :, None] - y[:, None]
    return np.asarray(((pairs > 0) + 0.5 * (pairs == 0)).mean(axis=(1, 2, 3)))


def _power(effect: float, count: int, confidence: float) -> float:
    """Of the two-sided paired t-test, for a difference of ``effect`` standard deviations."""
    from scipy.stats import nct, t

    edge = t.ppf(0.5 + confidence / 2, count - 1)
    shift = effect * math.sqrt(count)
    if shift > 8 and count > 20:  # far out SciPy's noncentral t is NaN, and nothing is missed
        return 1.0
    return float(nct.sf(edge, count - 1, shift) + np.nan_to_num(nct.cdf(-edge, count - 1, shift)))
