"""Evaluations while training: what is logged, written, kept as the best, and after a break."""

import dataclasses
import io
from collections import deque

import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import (
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.callbacks.diagnostics import GradientDiagnosticsCallback
from mtrl_imgrad.agents.callbacks.evaluation import MTEvalCallback
from mtrl_imgrad.agents.callbacks.progress import MTProgressBarCallback
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success
from tests.support.agents.recorded import NUM_ENVS, TASKS, Child, Recorder, eval_env, make_sac


def report_of(rates, n=10, reward=0.0):
    successes = np.arange(n) < np.round(n * np.array(rates))[:, None]
    returns, lengths = np.full(successes.shape, reward), np.full(successes.shape, 25)
    return SuccessReport(tuple(TASKS), successes, returns, lengths)


@pytest.fixture
def outcomes(monkeypatch):
    """Evaluations return these reports in turn."""
    queue = deque()
    monkeypatch.setattr(
        "mtrl_imgrad.agents.callbacks.evaluation.evaluate_success", lambda *args, **kwargs: queue.popleft()
    )
    return queue


@pytest.fixture
def saves(monkeypatch):
    """The timesteps at which a model was saved, and where."""
    found = []
    monkeypatch.setattr(SAC, "save", lambda model, path: found.append((model.num_timesteps, path)))
    return found


class TestEvaluation:
    def test_real_evaluations_are_logged_and_written(self, tmp_path):
        model, recorder = make_sac()
        folders = {"log_path": tmp_path, "best_model_save_path": tmp_path / "best"}
        callback = MTEvalCallback(eval_env(), n_eval_episodes=3, eval_freq=10, verbose=0, **folders)
        model.learn(25 * NUM_ENVS, callback)
        history = EvaluationHistory.load(tmp_path / "evaluations.npz")
        assert history.timesteps.tolist() == [10 * NUM_ENVS, 20 * NUM_ENVS]
        assert history.task_names == tuple(TASKS)
        assert history.num_episodes.tolist() == [3, 3]
        for ours, written in zip(callback.evaluations.reports, history.reports, strict=True):
            np.testing.assert_array_equal(ours.successes, written.successes)
        # The agent never learned: its first evaluation is what a fresh environment gives now.
        expected = evaluate_success(model, eval_env(), 3)
        np.testing.assert_array_equal(history.reports[0].returns, expected.returns)
        assert recorder.steps_of("eval/mean_reward")[10 * NUM_ENVS] == pytest.approx(expected.returns.mean())
        best = SAC.load(tmp_path / "best" / "best_model")
        np.testing.assert_array_equal(evaluate_success(best, eval_env(), 3).returns, expected.returns)

    def test_tags(self, outcomes):
        model, recorder = make_sac()
        outcomes.append(report_of([1.0, 0.5, 0.2, 0.1], reward=7.0))
        callback = MTEvalCallback(eval_env(), eval_freq=5, verbose=0)
        model.learn(5 * NUM_ENVS, callback)
        step, values, _ = recorder.written[0]
        assert step == 5 * NUM_ENVS
        assert values["eval/success_rate"] == pytest.approx(0.45)
        assert [values[f"eval/success_rate/{name}"] for name in TASKS] == [1.0, 0.5, 0.2, 0.1]
        assert values["eval/mean_reward"] == 7.0
        assert values["eval/mean_ep_length"] == 25
        assert values["time/total_timesteps"] == 5 * NUM_ENVS
        assert callback.last_report.mean_success == pytest.approx(0.45)

    def test_the_best_is_the_best_by_success_and_of_equals_the_later(self, outcomes, saves, tmp_path):
        model, _ = make_sac()
        outcomes.extend(
            [
                report_of([0.2] * 4, reward=100.0),
                report_of([0.1] * 4, reward=900.0),  # more reward, less success
                report_of([0.5] * 4, reward=1.0),
                report_of([1.0, 1.0, 0.0, 0.0], reward=0.0),  # equal
                report_of([0.4] * 4, reward=2.0),
            ]
        )
        callback = MTEvalCallback(eval_env(), eval_freq=1, best_model_save_path=tmp_path / "best", verbose=0)
        assert callback.best_mean_success == -np.inf
        model.learn(5 * NUM_ENVS, callback)
        assert saves == [(k * NUM_ENVS, tmp_path / "best" / "best_model") for k in (1, 3, 4)]
        assert callback.best_mean_success == 0.5
        assert callback.last_report.mean_success == pytest.approx(0.4)
        assert (tmp_path / "best").is_dir()

    @pytest.mark.parametrize(
        ("verbose", "expected"),
        [
            (0, ""),
            (
                1,
                "evaluation at 4 timesteps, 10 episodes a task: "
                "success 0.500 [0.398, 0.602], the best so far; return 3\n",
            ),
        ],
    )
    def test_what_is_printed(self, outcomes, capsys, verbose, expected):
        successes = np.array([[True], [False]] * 2) & np.ones(10, bool)
        flat = SuccessReport(tuple(TASKS), successes, np.full((4, 10), 3.0), np.ones((4, 10)))
        outcomes.append(flat)
        model, _ = make_sac()
        model.learn(NUM_ENVS, MTEvalCallback(eval_env(), eval_freq=1, verbose=verbose))
        assert capsys.readouterr().out == expected

    def test_the_table_is_printed_when_asked_for(self, outcomes, capsys):
        outcomes.append(report_of([0.1] * 4))
        model, _ = make_sac()
        model.learn(NUM_ENVS, MTEvalCallback(eval_env(), eval_freq=1, verbose=2))
        assert str(report_of([0.1] * 4)) in capsys.readouterr().out

    def test_training_is_not_disturbed(self):
        def parameters(callback):
            model, _ = make_sac(learning_starts=40, batch_size=8, policy_kwargs={"net_arch": [8]})
            model.learn(160, callback)
            return torch.cat([p.flatten() for p in model.policy.parameters()])

        callback = MTEvalCallback(eval_env(), n_eval_episodes=1, eval_freq=15, deterministic=False, verbose=0)
        assert torch.equal(parameters(callback), parameters(None))
        assert len(callback.evaluations) == 2

    def test_sampled_actions_follow_from_the_agents_seed_and_differ_between_evaluations(self):
        def seeds_of_actions(seed):
            model, _ = make_sac(seed=seed, policy_kwargs={"net_arch": [8]})
            env, seeds = eval_env(), []
            reset = env.reset  # an evaluation begins with it
            env.reset = lambda: (seeds.append(torch.initial_seed()), reset())[1]
            model.learn(160, MTEvalCallback(env, n_eval_episodes=1, eval_freq=15, deterministic=False, verbose=0))
            return seeds

        seeds = seeds_of_actions(1)
        assert len(set(seeds)) == 2
        assert seeds_of_actions(1) == seeds
        assert not set(seeds_of_actions(2)) & set(seeds)

    def test_normalisation_is_copied_to_the_evaluation(self):
        model, _ = make_sac(VecNormalize(make_vec_env("toy-reach", seed=0), norm_reward=False))
        env = VecNormalize(eval_env(), training=False, norm_reward=False)
        model.learn(10 * NUM_ENVS, MTEvalCallback(env, n_eval_episodes=1, eval_freq=10, verbose=0))
        np.testing.assert_array_equal(env.obs_rms.mean, model.get_env().obs_rms.mean)
        assert np.abs(env.obs_rms.mean).max() > 0
        with pytest.raises(ArgumentError, match="wrapped as the training environment"):
            model.learn(NUM_ENVS, MTEvalCallback(eval_env(), eval_freq=1))


class TestChildren:
    def test_are_called_at_their_events_with_the_locals(self, outcomes):
        model, _ = make_sac()
        outcomes.extend(report_of([rate] * 4) for rate in (0.3, 0.2, 0.4))
        best, every = Child(), Child()
        model.learn(3 * NUM_ENVS, MTEvalCallback(eval_env(), best, every, eval_freq=1, verbose=0))
        assert best.seen == [(4, pytest.approx(0.3), True), (12, pytest.approx(0.4), True)]
        assert [seen[0] for seen in every.seen] == [4, 8, 12]
        assert all(seen[2] for seen in every.seen)

    @pytest.mark.parametrize("which", ["callback_on_new_best", "callback_after_eval"])
    def test_may_end_the_training(self, outcomes, which):
        model, _ = make_sac()
        outcomes.extend([report_of([0.3] * 4)] * 2)
        callback = MTEvalCallback(eval_env(), eval_freq=2, verbose=0, **{which: Child(answer=False)})
        model.learn(100 * NUM_ENVS, callback)
        assert model.num_timesteps == 2 * NUM_ENVS

    def test_sb3_s_threshold_is_one_of_success(self, outcomes):
        model, _ = make_sac()
        outcomes.extend(report_of([rate] * 4, reward=1e6) for rate in (0.3, 0.9, 0.5))
        stop = StopTrainingOnRewardThreshold(0.9)
        model.learn(100 * NUM_ENVS, MTEvalCallback(eval_env(), stop, eval_freq=1, verbose=0))
        assert model.num_timesteps == 2 * NUM_ENVS

    def test_sb3_s_patience_is_one_of_success(self, outcomes):
        model, _ = make_sac()
        outcomes.extend(report_of([rate] * 4, reward=k) for k, rate in enumerate((0.3, 0.5, 0.5, 0.4, 0.9)))
        stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1)
        model.learn(100 * NUM_ENVS, MTEvalCallback(eval_env(), callback_after_eval=stop, eval_freq=1, verbose=0))
        assert model.num_timesteps == 4 * NUM_ENVS


class TestNoNotionOfSuccess:
    @staticmethod
    def silent(returns, known=(False,) * 4, rates=(0.0,) * 4):
        report = report_of(rates)
        scaled = np.array(returns)[:, None] * np.ones((4, 10))
        return dataclasses.replace(report, returns=scaled, has_success=np.array(known))

    def test_the_best_is_chosen_by_normalized_return(self, outcomes, saves, tmp_path):
        """By the mean of raw returns the third would win, since its last task has the large numbers."""
        model, recorder = make_sac()
        outcomes.extend(self.silent(r) for r in ([0, 0, 0, 0], [1, 1, 1, 800], [0.1, 0, 0, 1000], [0, 0, 0, 0]))
        callback = MTEvalCallback(eval_env(), eval_freq=1, best_model_save_path=tmp_path, verbose=0)
        model.learn(4 * NUM_ENVS, callback)
        assert [when // NUM_ENVS for when, _ in saves] == [1, 2]
        assert callback.best_mean_reward == np.mean([1, 1, 1, 800]), "SB3's stopping callbacks get a return"
        assert np.isnan(callback.best_mean_success)
        values = recorder.written[1][1]
        assert not [key for key in values if key.startswith("eval/success_rate")]
        assert values[f"eval/mean_reward/{TASKS[3]}"] == 800
        assert values["eval/episodes"] == 10

    def test_success_and_normalized_return_count_alike(self, outcomes, saves, tmp_path):
        model, _ = make_sac()
        known = (True, True, True, False)
        outcomes.extend(
            self.silent([0, 0, 0, last], known, (rate, 0, 0, 0)) for rate, last in ((0.5, -9), (0.4, -3), (0.3, -8))
        )
        callback = MTEvalCallback(eval_env(), eval_freq=1, best_model_save_path=tmp_path, verbose=0)
        model.learn(3 * NUM_ENVS, callback)
        assert [when // NUM_ENVS for when, _ in saves] == [1, 2]
        assert callback.best_mean_success == pytest.approx(0.4 / 3)

    def test_a_line_says_so(self, outcomes, capsys):
        outcomes.append(self.silent([1, 2, 3, 4]))
        make_sac()[0].learn(NUM_ENVS, MTEvalCallback(eval_env(), eval_freq=1))
        assert "success -, the best so far; return 2.5" in capsys.readouterr().out


class TestGoingOn:
    def test_the_untrained_agent_is_no_candidate_before_nor_after_a_break(self, outcomes, saves, tmp_path):
        """It is in the history, for curves begin there, but no model of it was saved."""
        history = EvaluationHistory(TASKS)
        history.append(0, report_of([0.9] * 4))
        history.append(20, report_of([0.2] * 4))
        history.save(tmp_path / "evaluations")
        model, _ = make_sac()
        model.num_timesteps = 20
        outcomes.append(report_of([0.3] * 4))
        callback = MTEvalCallback(eval_env(), eval_freq=5, log_path=tmp_path, best_model_save_path=tmp_path, verbose=0)
        model.learn(20, callback, reset_num_timesteps=False)
        assert [when for when, _ in saves] == [40]

    def test_a_broken_training_writes_what_a_whole_one_writes(self, outcomes, saves, tmp_path):
        rates = (0.3, 0.6, 0.5, 0.6)

        def train(model, steps, folder, **options):
            callback = MTEvalCallback(eval_env(), eval_freq=5, log_path=folder, best_model_save_path=folder, verbose=0)
            model.learn(steps * NUM_ENVS, callback, **options)
            return callback

        model, _ = make_sac()
        outcomes.extend(report_of([rate] * 4) for rate in rates)
        train(model, 20, tmp_path / "whole")
        whole = list(saves)
        saves.clear()
        outcomes.extend(report_of([rate] * 4) for rate in rates)
        model, _ = make_sac()
        train(model, 13, tmp_path / "broken")
        callback = train(model, 7, tmp_path / "broken", reset_num_timesteps=False)
        histories = [EvaluationHistory.load(tmp_path / name / "evaluations") for name in ("whole", "broken")]
        assert histories[0].timesteps.tolist() == histories[1].timesteps.tolist() == [20, 40, 60, 80]
        np.testing.assert_array_equal(histories[0].success_rate, histories[1].success_rate)
        assert [when for when, _ in saves] == [when for when, _ in whole] == [20, 40, 80]
        assert callback.best_mean_success == pytest.approx(0.6)

    def test_evaluations_after_the_point_of_return_are_dropped(self, outcomes, tmp_path):
        history = EvaluationHistory(TASKS)
        for when, rate in ((20, 0.1), (40, 0.2), (60, 0.9)):
            history.append(when, report_of([rate] * 4))
        history.save(tmp_path / "evaluations")
        model, _ = make_sac()
        model.num_timesteps = 48  # as if loaded from a checkpoint
        outcomes.append(report_of([0.3] * 4))
        callback = MTEvalCallback(eval_env(), eval_freq=5, log_path=tmp_path, verbose=0)
        model.learn(12, callback, reset_num_timesteps=False)
        assert EvaluationHistory.load(tmp_path / "evaluations").timesteps.tolist() == [20, 40, 60]
        np.testing.assert_allclose(callback.evaluations.mean_success, [0.1, 0.2, 0.3])
        assert callback.best_mean_success == pytest.approx(0.3)

    def test_the_same_callback_may_go_on_or_begin_anew(self, outcomes, tmp_path):
        model, _ = make_sac()
        outcomes.extend([report_of([0.3] * 4)] * 5)
        callback = MTEvalCallback(eval_env(), eval_freq=2, log_path=tmp_path, verbose=0)
        model.learn(4 * NUM_ENVS, callback)
        model.learn(2 * NUM_ENVS, callback, reset_num_timesteps=False)
        assert callback.evaluations.timesteps.tolist() == [8, 16, 24]
        model.learn(4 * NUM_ENVS, callback)
        assert callback.evaluations.timesteps.tolist() == [8, 16]

    def test_evaluations_of_other_tasks_or_damaged_ones_are_not_overwritten(self, tmp_path):
        model, _ = make_sac()
        model.num_timesteps = 4
        callback = MTEvalCallback(eval_env(), log_path=tmp_path)
        path = EvaluationHistory(["other"]).save(tmp_path / "evaluations")
        with pytest.raises(TaskMismatchError, match="other"):
            model.learn(4, callback, reset_num_timesteps=False)
        path.write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match=r"evaluations\.npz"):
            model.learn(4, MTEvalCallback(eval_env(), log_path=tmp_path), reset_num_timesteps=False)
        assert path.read_bytes() == b"damaged"


class TestRefusals:
    def test_the_training_environment_before_the_first_step(self):
        env = make_vec_env("toy-reach", seed=0)
        model, _ = make_sac(env)
        with pytest.raises(ArgumentError, match="the environment the agent trains in"):
            model.learn(NUM_ENVS, MTEvalCallback(env))
        assert model.num_timesteps == 0

    @pytest.mark.parametrize("options", [{"eval_freq": 0}, {"n_eval_episodes": 0}])
    def test_arguments(self, options):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            MTEvalCallback(eval_env(), **options)
        with pytest.raises(ArgumentError, match="log_freq"):
            GradientDiagnosticsCallback(log_freq=0)
        with pytest.raises(ArgumentError, match="window"):
            MTProgressBarCallback(window=0)

    def test_diagnostics_of_an_agent_without_a_combiner(self):
        model, _ = make_sac()
        with pytest.raises(ArgumentError, match="SAC keeps no last_combinations"):
            model.learn(NUM_ENVS, GradientDiagnosticsCallback())


class TestWithMTSAC:
    def test_all_three_on_an_agent_that_learns(self, tmp_path):
        env = make_vec_env("toy-reach", seed=0)
        options = {"policy_kwargs": {"net_arch": [16]}, "batch_size": 16, "learning_starts": 40, "seed": 0}
        model = MTSAC("MlpPolicy", env, combiner="mgda", buffer_size=1000, **options)
        recorder = Recorder()
        model.set_logger(Logger(None, [recorder]))
        file = io.StringIO()
        evaluation = MTEvalCallback(
            eval_env(),
            n_eval_episodes=2,
            eval_freq=20,
            log_path=tmp_path,
            best_model_save_path=tmp_path,
            verbose=0,
        )
        bar = MTProgressBarCallback(console=Console(file=file, width=80))
        model.learn(40 * NUM_ENVS, [GradientDiagnosticsCallback(log_freq=1), evaluation, bar])
        step, values, _ = [entry for entry in recorder.written if "eval/success_rate" in entry[1]][-1]
        assert step == 40 * NUM_ENVS
        weights = np.array([values[f"combiner/actor/weight/{name}"] for name in TASKS])
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0)
        norms = np.array([values[f"grad/critic/norm/{name}"] for name in TASKS])
        assert values["grad/imbalance"] == pytest.approx(norms.max() / norms.min())
        assert values["grad/critic/cos_min"] == values["grad/cos_min"] != values["grad/actor/cos_min"]
        assert (tmp_path / "evaluations.npz").exists()
        assert evaluation.evaluations.timesteps.tolist() == [80, 160]
        assert {name: list(bar.successes[name]) for name in TASKS} == {
            name: list(found) for name, found in model.task_success_buffers.items()
        }
