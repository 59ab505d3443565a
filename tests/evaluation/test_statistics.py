import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.evaluation.statistics import (
    aggregate_runs,
    interquartile_mean,
    stratified_bootstrap,
    success_interval,
    wilson_interval,
)


class TestWilson:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998).
    @pytest.mark.parametrize(
        ("successes", "trials", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published_values(self, successes, trials, low, high):
        assert wilson_interval(successes, trials).round(4).tolist() == [low, high]

    @given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
    def test_agrees_with_scipy(self, counts, confidence):
        expected = stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose(wilson_interval(*counts, confidence), [expected.low, expected.high], atol=1e-9)

    def test_closed_form_at_the_ends_is_exact(self):
        z = stats.norm.ppf(0.975)
        none, all_ = wilson_interval([0, 7], 7)
        assert none[0] == 0.0
        assert all_[1] == 1.0
        assert none[1] == pytest.approx(z**2 / (7 + z**2), rel=1e-12)
        assert all_[0] == pytest.approx(7 / (7 + z**2), rel=1e-12)

    def test_broadcasts(self):
        found = wilson_interval([[1, 2], [3, 4]], 10)
        assert found.shape == (2, 2, 2)
        np.testing.assert_array_equal(found[1, 0], wilson_interval(3, 10))

    @pytest.mark.parametrize(
        ("successes", "trials", "match"),
        [
            (3, 2, "0 <= successes <= trials"),
            (-1, 2, "0 <= successes"),
            (0, 0, "trials >= 1"),
            (0.5, 2, "successes must hold whole numbers"),
            (np.nan, 2, "successes must hold whole numbers"),
        ],
    )
    def test_refuses_wrong_counts(self, successes, trials, match):
        with pytest.raises(ArgumentError, match=match):
            wilson_interval(successes, trials)

    @pytest.mark.parametrize("confidence", [0.0, 1.0, 95, np.nan])
    def test_refuses_a_wrong_level(self, confidence):
        with pytest.raises(ArgumentError, match="confidence"):
            wilson_interval(1, 2, confidence)


class TestInterquartileMean:
    def test_fractional_weights_by_hand(self):
        # Five values stand for a fifth each; of the second and the fourth 0.15 lies between the quartiles.
        assert interquartile_mean([50, 1, 7, 2, -9]) == pytest.approx((1 * 0.15 + 2 * 0.2 + 7 * 0.15) / 0.5)

    @given(arrays(float, st.integers(1, 20).map(lambda n: 4 * n), elements=st.floats(-1e3, 1e3)))
    def test_is_the_trimmed_mean_where_four_divides_the_number(self, values):
        np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25), atol=1e-9)

    @given(arrays(float, array_shapes(max_dims=2, max_side=7), elements=st.floats(-1e3, 1e3)), st.floats(-5, 5))
    def test_moves_and_scales_with_the_values_and_lies_within_the_quartiles(self, values, shift):
        found = interquartile_mean(values)
        np.testing.assert_allclose(interquartile_mean(-2 * values + shift), -2 * found + shift, atol=1e-8)
        assert values.min() - 1e-9 <= found <= values.max() + 1e-9

    def test_ignores_a_quarter_of_outliers(self):
        assert interquartile_mean([1.0, 1.0, 1.0, 1e9]) == 1.0

    def test_axis(self):
        values = np.random.default_rng(0).random((4, 6))
        found = interquartile_mean(values, axis=0)
        np.testing.assert_allclose(found, [interquartile_mean(values[:, k]) for k in range(6)])

    def test_refuses_nothing_and_nan(self):
        with pytest.raises(ArgumentError, match="empty"):
            interquartile_mean([])
        with pytest.raises(NonFiniteError, match="NaN"):
            interquartile_mean([1.0, np.nan])


class TestBootstrap:
    def test_two_runs_of_one_task_by_hand(self):
        # The mean of two draws from {0, 1} is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
        assert stratified_bootstrap([[0.0], [1.0]], confidence=0.9) == (0.0, 1.0)
        assert stratified_bootstrap([[0.0], [1.0]], confidence=0.4) == (0.5, 0.5)

    def test_strata_keep_the_spread_between_tasks_out(self):
        scores = np.array([[0.0, 1.0, 5.0]] * 4)  # runs agree, tasks do not
        assert stratified_bootstrap(scores) == (2.0, 2.0)

    def test_half_width_is_that_of_the_normal_approximation(self):
        scores = np.random.default_rng(1).normal(size=(40, 25))
        low, high = stratified_bootstrap(scores, resamples=20_000)
        error = np.sqrt((scores.var(axis=0) / 40).sum()) / 25
        assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.03)
        assert (high + low) / 2 == pytest.approx(scores.mean(), abs=0.1 * error)

    def test_drawing_whole_runs_sees_that_tasks_rise_and_fall_together(self):
        scores = np.repeat(np.random.default_rng(2).normal(size=(30, 1)), 16, axis=1)  # equal in all tasks
        within = np.ptp(stratified_bootstrap(scores))
        runs = np.ptp(stratified_bootstrap(scores, resample="runs"))
        assert runs / within == pytest.approx(4.0, rel=0.1)  # sqrt of the 16 tasks

    def test_any_statistic(self):
        scores = np.random.default_rng(3).random((6, 3))
        assert stratified_bootstrap(scores, lambda s: s.max(axis=(1, 2))).high == scores.max()

    def test_seed_decides(self):
        scores = np.random.default_rng(4).random((6, 3))
        assert stratified_bootstrap(scores, seed=5) == stratified_bootstrap(scores, seed=5)
        assert stratified_bootstrap(scores, seed=5) != stratified_bootstrap(scores, seed=6)

    def test_chunks_change_nothing(self, monkeypatch):
        scores = np.random.default_rng(4).random((6, 3))
        whole = stratified_bootstrap(scores, resamples=101)
        monkeypatch.setattr("mtrl_imgrad.evaluation.statistics.CHUNK", 6 * 3 * 7)
        assert stratified_bootstrap(scores, resamples=101) == whole

    def test_one_run_has_no_interval(self):
        assert np.isnan(stratified_bootstrap([[0.5, 0.7]])).all()

    def test_leaves_the_global_generator_alone(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        stratified_bootstrap(np.eye(3))
        success_interval(np.eye(3, dtype=bool))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002

    @pytest.mark.parametrize(
        ("scores", "options", "match"),
        [
            ([1.0, 2.0], {}, r"\[runs, tasks\]"),
            (np.zeros((0, 3)), {}, "not empty"),
            (np.eye(2), {"resamples": 0}, "resamples"),
            (np.eye(2), {"confidence": 1.5}, "confidence"),
            (np.eye(2), {"resample": "rows"}, "one of 'within_task', 'runs'"),
        ],
    )
    def test_refuses_wrong_arguments(self, scores, options, match):
        with pytest.raises(ArgumentError, match=match):
            stratified_bootstrap(scores, **options)

    def test_names_the_run_and_task_of_a_nan(self):
        with pytest.raises(NonFiniteError, match="run 1 on task 2"):
            aggregate_runs([[0.0, 0.0, 0.0], [0.0, 0.0, np.nan]])


class TestSuccessInterval:
    def test_many_episodes_give_the_bootstrap_s(self):
        successes = np.random.default_rng(0).random((5, 400)) < np.linspace(0.1, 0.9, 5)[:, None]
        np.testing.assert_allclose(success_interval(successes), stratified_bootstrap(successes.T), atol=0.004)

    @given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
    def test_of_one_task_it_is_wilson_s(self, counts, confidence):
        hits, n = counts
        found = success_interval([np.arange(n) < hits], confidence)
        np.testing.assert_allclose(found, wilson_interval(hits, n, confidence), atol=1e-12)

    @pytest.mark.parametrize("rate", [False, True])
    @pytest.mark.parametrize("tasks", [1, 3, 10])
    def test_does_not_collapse_where_all_episodes_ended_alike(self, rate, tasks):
        """As wide as Wilson's interval of as many episodes."""
        found = success_interval(np.full((tasks, 5), rate))
        np.testing.assert_allclose(found, wilson_interval(rate * tasks * 5, tasks * 5), atol=1e-12)

    def test_does_not_collapse_where_some_tasks_always_succeed_and_the_others_never(self):
        low, high = success_interval(np.repeat([[True], [False]], 5, axis=1))
        assert high - low > 0.4

    @given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.floats(0.5, 0.999))
    def test_lies_in_the_unit_interval_around_the_mean(self, successes, confidence):
        low, high = success_interval(successes, confidence)
        assert 0 <= low <= successes.mean() + 1e-12
        assert successes.mean() - 1e-12 <= high <= 1

    @pytest.mark.parametrize(("tasks", "episodes"), [(2, 5), (2, 20), (3, 5)])
    def test_covers_the_truth_as_often_as_it_says(self, tasks, episodes):
        """By enumeration of all outcomes: worst and mean coverage over a grid of true rates, equal ones included.

        No interval for counts covers 95 % everywhere; Wilson's of a single task goes down to .92 on this grid.
        """
        counts = np.array(list(itertools.product(range(episodes + 1), repeat=tasks)))
        ends = np.array([success_interval(np.arange(episodes) < row[:, None]) for row in counts])
        covered = []
        for rates in itertools.combinations_with_replacement(np.linspace(0, 1, 11), tasks):
            chance = np.prod([stats.binom.pmf(counts[:, k], episodes, rates[k]) for k in range(tasks)], axis=0)
            inside = (ends[:, 0] <= np.mean(rates) + 1e-12) & (ends[:, 1] >= np.mean(rates) - 1e-12)
            covered.append(chance[inside].sum())
        assert min(covered) > 0.91
        assert np.mean(covered) > 0.95

    def test_ten_tasks_half_of_them_solved_are_covered(self):
        """What a multi-task agent looks like: simulated, 95 % asked for, 97 to 100 % found."""
        rates = np.array([0.02] * 4 + [0.5] + [0.97] * 5)
        draws = np.random.default_rng(0).random((500, 10, 20)) < rates[:, None]
        ends = np.array([success_interval(successes) for successes in draws])
        inside = (ends[:, 0] <= rates.mean()) & (rates.mean() <= ends[:, 1])
        assert inside.mean() > 0.95

    @pytest.mark.parametrize("successes", [np.ones((3, 2)), np.ones(3, bool), np.ones((0, 2), bool)])
    def test_refuses_what_is_no_boolean_matrix(self, successes):
        with pytest.raises(ArgumentError, match=r"bool \[tasks, episodes\]"):
            success_interval(successes)


class TestAggregate:
    def test_means_and_intervals(self):
        scores = np.random.default_rng(0).random((10, 7))
        found = aggregate_runs(scores, confidence=0.8, seed=3)
        assert found.mean == pytest.approx(scores.mean())
        assert found.iqm == pytest.approx(float(interquartile_mean(scores)))
        assert found.mean_interval == stratified_bootstrap(scores, confidence=0.8, seed=3)
        expected = stratified_bootstrap(
            scores,
            lambda s: np.array([interquartile_mean(one) for one in s]),
            confidence=0.8,
            seed=3,
        )
        np.testing.assert_allclose(found.iqm_interval, expected, rtol=1e-12)
        assert (found.num_runs, found.num_tasks, found.confidence) == (10, 7, 0.8)

    def test_reads_well(self):
        found = aggregate_runs(np.full((3, 2), 0.5))
        sample = "(3 runs x 2 tasks, 95 % intervals over runs)"
        assert str(found) == f"mean 0.500 [0.184, 0.816], IQM 0.500 [0.118, 0.882] {sample}"

    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    @pytest.mark.parametrize("runs", [2, 5, 10])
    def test_runs_that_agree_leave_the_exact_binomial_bound(self, runs, confidence):
        bound = stats.binomtest(runs, runs, alternative="greater").proportion_ci(confidence, "exact").low
        found = aggregate_runs(np.ones((runs, 3)), confidence=confidence)
        assert found.mean_interval == pytest.approx((bound, 1.0), abs=1e-12)
        found = aggregate_runs(np.zeros((runs, 3)), confidence=confidence)
        assert found.mean_interval == pytest.approx((0.0, 1 - bound), abs=1e-12)

    def test_the_interquartile_mean_of_runs_that_agree(self):
        row = [0.2, 0.4, 0.9]
        found = aggregate_runs([row] * 10)
        unseen = 1 - 0.05**0.1
        for end, worst in zip(found.iqm_interval, (0.0, 1.0), strict=True):
            many = np.concatenate([[worst] * round(3e5 * unseen), np.repeat(row, round(1e5 * (1 - unseen)))])
            assert end == pytest.approx(stats.trim_mean(many, 0.25), abs=1e-4)

    @pytest.mark.parametrize("resample", ["within_task", "runs"])
    def test_an_interval_is_no_point_where_only_the_middle_half_agrees(self, resample):
        scores = np.ones((10, 10))
        scores[0, 0] = 0.9
        found = aggregate_runs(scores, resample=resample)
        assert found.iqm_interval.low < found.iqm == found.iqm_interval.high == 1
        assert found.mean_interval == stratified_bootstrap(scores, resample=resample)

    def test_runs_that_agree_on_returns_have_no_interval(self):
        found = aggregate_runs(np.full((4, 2), 250.0))
        assert np.isnan([*found.mean_interval, *found.iqm_interval]).all()
