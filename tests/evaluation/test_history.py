"""Evaluations over a training: order, parts, files."""

import numpy as np
import pytest

from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from tests.support.evaluation.reports import assert_same, make_report


class TestHistory:
    def filled(self):
        history = EvaluationHistory(("reach", "push", "näher"), confidence=0.9)
        for i in range(3):
            history.append(100 * (i + 1), make_report(seed=i))
        return history

    def test_saved_and_loaded_it_is_the_same(self, tmp_path):
        history = self.filled()
        path = history.save(tmp_path / "new" / "evaluations")
        loaded = EvaluationHistory.load(path)
        assert loaded.timesteps.tolist() == [100, 200, 300]
        assert len(loaded) == 3
        for a, b in zip(loaded.reports, history.reports, strict=True):
            assert_same(a, b)
        with np.load(path, allow_pickle=False) as archive:
            assert archive["successes"].shape == (3, 60)
            assert archive["num_episodes"].tolist() == [20] * 3
            assert archive["task_names"].tolist() == ["reach", "push", "näher"]

    def test_numbers(self):
        history = self.filled()
        successes = np.stack([report.successes for report in history.reports])
        np.testing.assert_allclose(history.success_rate, successes.mean(axis=2))
        np.testing.assert_allclose(history.mean_success, successes.mean(axis=(1, 2)))
        np.testing.assert_allclose(history.scores, history.mean_success)
        assert history.mean_intervals.tolist() == [list(report.mean_interval) for report in history.reports]

    def test_an_empty_one_can_be_saved(self, tmp_path):
        loaded = EvaluationHistory.load(EvaluationHistory(["a", "b"]).save(tmp_path / "none"))
        assert (len(loaded), loaded.task_names) == (0, ("a", "b"))
        assert loaded.num_episodes.shape == loaded.scores.shape == (0,)
        assert loaded.mean_intervals.shape == (0, 2)

    def test_until(self):
        history = self.filled()
        assert history.until(200).timesteps.tolist() == [100, 200]
        assert history.until(199).timesteps.tolist() == [100]
        assert len(history.until(0)) == 0

    @pytest.mark.parametrize(
        ("timesteps", "report", "error", "match"),
        [
            (400, make_report(names=("a", "b", "c")), TaskMismatchError, "the report of"),
            (299, make_report(), ArgumentError, "must not fall, got 299 after 300"),
            (
                400,
                SuccessReport(
                    ("reach", "push", "näher"),
                    np.zeros((3, 1), bool),
                    np.ones((3, 1)),
                    np.ones((3, 1)),
                    has_success=np.array([True, True, False]),
                ),
                TaskMismatchError,
                "agree on which tasks have a notion of success",
            ),
        ],
    )
    def test_refuses_what_does_not_belong(self, timesteps, report, error, match):
        history = self.filled()
        with pytest.raises(error, match=match):
            history.append(timesteps, report)
        assert len(history) == 3

    def test_the_last_evaluation_may_have_more_episodes_and_be_of_the_same_step(self, tmp_path):
        history = self.filled()
        history.append(300, make_report(n=50))
        loaded = EvaluationHistory.load(history.save(tmp_path / "e"))
        assert loaded.num_episodes.tolist() == [20, 20, 20, 50]
        for a, b in zip(loaded.reports, history.reports, strict=True):
            assert_same(a, b)
        with np.load(tmp_path / "e.npz") as archive:
            members = dict(archive)
        np.savez(tmp_path / "e.npz", **{**members, "num_episodes": np.array([20, 20, 20, 51])})
        with pytest.raises(CheckpointError, match="does not fit num_episodes"):
            EvaluationHistory.load(tmp_path / "e.npz")

    def test_a_file_of_0_1_0_is_read(self):
        history = EvaluationHistory.load("docs/results/mt10_cpu/evaluations.npz")
        assert history.num_episodes.tolist() == [5] * 7
        assert history.mean_success[-1] == pytest.approx(0.54)

    def test_scores_are_success_or_normalized_returns(self):
        history = EvaluationHistory(("told", "silent"))
        for when, (hits, told, silent) in enumerate([(0, 9.0, -20.0), (1, 0.0, -10.0), (2, 0.0, -15.0)]):
            successes = np.array([[True] * hits + [False] * (2 - hits), [False] * 2])
            returns = np.array([[told] * 2, [silent - 1, silent + 1]])
            known = np.array([True, False])
            history.append(when, SuccessReport(("told", "silent"), successes, returns, np.ones((2, 2)), 0.9, known))
        np.testing.assert_allclose(history.normalized_returns, [[1, 0], [0, 1], [0, 0.5]])
        np.testing.assert_allclose(history.scores, [0, 0.75, 0.75])
