"""Comparisons of methods, against SciPy and counts that share no code with them."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation import (
    aggregate_runs,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    seeds_needed,
    stratified_bootstrap,
    worst_tasks,
)

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.integers(0, 6, (8, 5)) / 5, RNG.integers(0, 6, (6, 5)) / 5  # with ties


def test_probability_of_improvement_is_the_mean_of_mann_whitneys_u():
    expected = np.mean([stats.mannwhitneyu(FIRST[:, k], SECOND[:, k]).statistic / 48 for k in range(5)])
    found = probability_of_improvement(FIRST, SECOND)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert probability_of_improvement(SECOND, FIRST).value == pytest.approx(1 - expected, abs=1e-12)
    assert found.interval.low < expected < found.interval.high


def test_its_interval_is_the_bootstrap_of_runs_within_tasks():
    """Exact here: two runs a method and one task leave sixteen equally likely draws."""
    x, y = np.array([[0.0], [1.0]]), np.array([[0.5], [2.0]])
    draws = [
        np.mean([(a > b) + 0.5 * (a == b) for a in xs for b in ys])
        for xs in itertools.product(x.ravel(), repeat=2)
        for ys in itertools.product(y.ravel(), repeat=2)
    ]
    found = probability_of_improvement(x, y, confidence=0.5, resamples=20_000).interval
    assert tuple(found) == pytest.approx(np.quantile(draws, [0.25, 0.75], method="inverted_cdf"), abs=1e-12)


def test_iqm_is_scipys_trimmed_mean_and_its_interval_scipys_bootstrap():
    assert aggregate_runs(FIRST).iqm == pytest.approx(stats.trim_mean(FIRST, 0.25, axis=None), abs=1e-12)
    # One task: SciPy's bootstrap draws runs as ours does.
    column = RNG.normal(size=(12, 1))
    theirs = stats.bootstrap(
        (column[:, 0],), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = aggregate_runs(column, resamples=20_000).iqm_interval
    assert tuple(ours) == pytest.approx(tuple(theirs), abs=0.05)


# What rliable 1.2.0 (with arch 7.2.0, NumPy 2.4.6) says of these scores: `get_interval_estimates` and
# `create_performance_profile` with 20,000 draws, 5,000 for the probability; all percentile intervals of 95 %.
A = np.array([[9, 4, 0, 10], [10, 2, 1, 9], [8, 6, 0, 10], [10, 5, 3, 7], [9, 1, 0, 10], [10, 4, 2, 8]]) / 10
B = np.array([[8, 3, 1, 9], [9, 4, 0, 6], [7, 1, 0, 10], [10, 2, 2, 5], [6, 3, 1, 8]]) / 10
RLIABLE = {
    "mean": [(0.575, 0.525, 0.625), (0.475, 0.415, 0.530)],
    "iqm": [(0.616667, 0.541667, 0.691667), (0.46, 0.39, 0.54)],
}
RLIABLE_IMPROVEMENT = (0.675, 0.508333, 0.816667)
RLIABLE_PROFILE = {
    0.0: (0.875, 0.791667, 0.958333),
    0.15: (0.791667, 0.666667, 0.916667),
    0.5: (0.541667, 0.5, 0.625),
    0.95: (0.25, 0.125, 0.375),
}


def test_rliable_says_the_same():
    for i, scores in enumerate((A, B)):
        found = aggregate_runs(scores, resamples=20_000)
        for name, expected in RLIABLE.items():
            value, interval = getattr(found, name), getattr(found, f"{name}_interval")
            assert value == pytest.approx(expected[i][0], abs=1e-6)
            assert tuple(interval) == pytest.approx(expected[i][1:], abs=0.01)  # a draw moves in steps of .004
    improvement = probability_of_improvement(A, B, resamples=20_000)
    assert improvement.value == pytest.approx(RLIABLE_IMPROVEMENT[0], abs=1e-9)
    assert tuple(improvement.interval) == pytest.approx(RLIABLE_IMPROVEMENT[1:], abs=0.02)
    shares, band = performance_profile(A, list(RLIABLE_PROFILE), resamples=20_000)
    for share, ends, (expected, *interval) in zip(shares, band, RLIABLE_PROFILE.values(), strict=True):
        assert share == pytest.approx(expected, abs=1e-6)
        assert tuple(ends) == pytest.approx(interval, abs=1 / 24 + 1e-6)  # shares of 24 scores: a step aside


def test_the_numbers_that_rliables_own_tests_state():
    """tests/rliable/metrics_test.py of google-research/rliable at f59f80b."""
    x, y = [[1, 2], [2, 2], [1, 1], [2, 1]], [[1, 1], [2, 2], [3, 3]]
    assert (aggregate_runs(x).mean, aggregate_runs(x).iqm) == (1.5, 1.5)
    assert (aggregate_runs(y).mean, aggregate_runs(y).iqm) == (2.0, pytest.approx(2.0))
    assert probability_of_improvement(x, y).value == pytest.approx(1 / 3)


def test_a_paired_difference_is_scipys_t_test():
    x, y = RNG.normal(size=7), RNG.normal(0.5, 1.0, size=7)
    found, expected = paired_difference(x, y), stats.ttest_rel(x, y)
    interval = expected.confidence_interval(0.95)
    assert tuple(found.interval) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert found.noise == (expected.pvalue > 0.05)
    assert found.num_seeds == 7


def test_below_three_seeds_nothing_is_claimed():
    assert paired_difference([1.0, 2.0], [5.0, 6.0]).noise is None
    assert np.isnan(paired_difference([1.0], [5.0]).interval.low)
    assert paired_difference([1.0, 2.0, 3.0], [5.0, 6.0, 7.0]).noise is False
    assert paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).noise is True


@pytest.mark.parametrize(("effect", "known"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_power_tables(effect, known):
    """Pairs for a two-sided paired t-test at 5 % and power .8: J. Cohen's effect sizes, as G*Power states them."""
    assert seeds_needed(effect, 1.0) == known
    assert seeds_needed(-2 * effect, 2.0) == known
    assert seeds_needed(1e-4, 1.0) is None


def test_as_many_seeds_see_the_difference_that_often():
    count = seeds_needed(1.0, 1.0)
    draws = np.random.default_rng(2).normal(1.0, 1.0, (4000, count))
    seen = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.77 < seen < 0.87  # ten pairs: .803


def test_worst_tasks_are_each_runs_own():
    scores = np.array([[1.0, 0.0, 0.5], [0.2, 0.9, 0.4]])
    np.testing.assert_allclose(worst_tasks(scores, 2), [0.25, 0.3])
    np.testing.assert_allclose(worst_tasks(scores, 3), scores.mean(axis=1))
    with pytest.raises(ArgumentError, match="k must be at most"):
        worst_tasks(scores, 4)


def test_a_profile_counts_runs_and_tasks_above_a_threshold():
    thresholds = np.array([-1.0, 0.0, 0.5, 1.0])
    shares, band = performance_profile(FIRST, thresholds)
    expected = [sum(score > tau for score in FIRST.ravel()) / FIRST.size for tau in thresholds]
    np.testing.assert_allclose(shares, expected)
    for tau, (low, high) in zip(thresholds, band, strict=True):
        same = stratified_bootstrap((tau < FIRST).astype(float))
        assert (low, high) == pytest.approx(tuple(same), abs=0.03)
    assert np.isnan(performance_profile(FIRST[:1], thresholds)[1]).all()
