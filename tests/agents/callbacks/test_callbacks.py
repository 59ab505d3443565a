import dataclasses
import io
import re
from collections import deque

import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.callbacks.diagnostics import GradientDiagnosticsCallback
from mtrl_imgrad.agents.callbacks.evaluation import MTEvalCallback
from mtrl_imgrad.agents.callbacks.progress import MTProgressBarCallback
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.combiners import Combination, Status
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success

TASKS = make_vec_env("toy-reach", seed=0).task_names
NUM_ENVS = len(TASKS)


class Recorder(KVWriter):
    """Keeps what is written, step by step."""

    def __init__(self):
        self.written = []

    def write(self, key_values, key_excluded, step=0):
        self.written.append((step, dict(key_values), dict(key_excluded)))

    def close(self):
        pass

    def steps_of(self, key):
        return {step: values[key] for step, values, _ in self.written if key in values}


def make_sac(env=None, **options):
    """An SAC that never updates, as it is the callbacks that are tested; with a recording logger."""
    env = env or make_vec_env("toy-reach", seed=0)
    model = SAC("MlpPolicy", env, **{"learning_starts": 10**6, "buffer_size": 1000, "seed": 0, **options})
    recorder = Recorder()
    model.set_logger(Logger(None, [recorder]))
    return model, recorder


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


def eval_env():
    return make_vec_env("toy-reach", seed=1)


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


class Child(BaseCallback):
    def __init__(self, answer=True):
        super().__init__()
        self.answer, self.seen = answer, []

    def _on_step(self):
        self.seen.append((self.num_timesteps, self.parent.last_report.mean_success, "infos" in self.locals))
        return self.answer


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


class TestRecordPerTask:
    def test_meta_world_s_fifty_names_do_not_break_sb3_s_table(self):
        names = list_tasks("MT50")
        text, recorder = io.StringIO(), Recorder()
        logger = Logger(None, [HumanOutputFormat(text), recorder])
        record_per_task(logger, "eval/success_rate", names, np.arange(50) / 50)
        logger.dump(0)
        assert recorder.written[0][1] == {f"eval/success_rate/{n}": k / 50 for k, n in enumerate(names)}
        rows = [line for line in text.getvalue().splitlines() if "success_rate/" in line]
        assert len(rows) == 48  # all but button-press-topdown and its variant with a wall
        assert not any("button-press-topd" in row for row in rows)
        assert any("success_rate/reach-v3 " in row for row in rows)

    def test_off_the_screen(self):
        text, recorder = io.StringIO(), Recorder()
        logger = Logger(None, [HumanOutputFormat(text), recorder])
        record_per_task(logger, "a/b", ["x"], [1.0], on_screen=False)
        logger.record("other", 1)
        logger.dump(0)
        assert "b/x" not in text.getvalue()
        assert recorder.written[0][1]["a/b/x"] == 1.0


GRAMIAN = torch.tensor(
    [[4.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 9.0, 1.0], [0.0, 0.0, 1.0, 0.25]],
    dtype=torch.float64,
)


def combination(weights=True, gramian=True, **extras):
    return Combination(
        gradient=torch.zeros(3),
        weights=torch.tensor([0.1, 0.2, 0.3, 0.4]) if weights else None,
        residual=torch.tensor(1e-9),
        status_code=torch.tensor(int(Status.INACCURATE)),
        gramian=GRAMIAN if gramian else None,
        extras=extras,
    )


class TestDiagnostics:
    def logged(self, combinations, steps=4, **options):
        model, recorder = make_sac()
        model.last_combinations = combinations
        model.learn(steps * NUM_ENVS, GradientDiagnosticsCallback(**options))
        values = dict(model.logger.name_to_value)
        hidden = {key for key, excluded in model.logger.name_to_excluded.items() if "stdout" in excluded}
        return values, hidden, recorder

    def test_values_and_tags(self):
        values, hidden, _ = self.logged({"actor": combination(), "critic": combination()}, log_freq=4)
        for part in ("/actor", "/critic", ""):
            assert [values[f"grad{part}/norm/{name}"] for name in TASKS] == [2.0, 1.0, 3.0, 0.5]
            assert values[f"grad{part}/cos_min"] == -0.5
            assert values[f"grad{part}/conflict_fraction"] == pytest.approx(1 / 6)
            assert values[f"grad{part}/imbalance"] == 6.0
            assert values[f"grad{part}/c_min"] == 0.0
            weights = [values[f"combiner{part}/weight/{name}"] for name in TASKS]
            assert weights == pytest.approx([0.1, 0.2, 0.3, 0.4])
            assert values[f"combiner{part}/residual"] == pytest.approx(1e-9)
            assert values[f"combiner{part}/status"] == 2
            towards = [values[f"grad{part}/direction_cosine/{name}"] for name in TASKS]
            assert towards == pytest.approx(np.array([0.2 / 2, 0.1, 3.1 / 3, 0.4 / 0.5]) / np.sqrt(1.13))
            assert values[f"grad{part}/pareto_failure"] == 0.0
        per_task = {key for key in values if any(f"/{what}/" in key for what in ("norm", "weight", "direction_cosine"))}
        assert len(per_task) == 36
        pairs = {key for key in values if "/cosine/" in key}
        assert len(pairs) == 12, "of each network; not once more by the plain names"
        assert values[f"grad/critic/cosine/{TASKS[0]}|{TASKS[1]}"] == -0.5
        assert values[f"grad/actor/cosine/{TASKS[2]}|{TASKS[3]}"] == pytest.approx(1 / 1.5)
        twice = {f"grad/{name}" for name in ("cos_min", "conflict_fraction", "imbalance", "c_min", "pareto_failure")}
        assert hidden == per_task | pairs | twice | {"combiner/residual", "combiner/status"}

    def test_a_step_that_goes_uphill_for_a_task_is_a_pareto_failure(self):
        uphill = dataclasses.replace(combination(), weights=torch.tensor([0.1, 0.5, 0.0, 0.0]))
        values, _, _ = self.logged({"critic": uphill}, log_freq=1)
        assert values["grad/critic/pareto_failure"] == 1.0
        first, second, *_ = (values[f"grad/critic/direction_cosine/{name}"] for name in TASKS)
        assert first < 0 < second

    def test_a_method_s_own_numbers_do_not_replace_ours(self):
        mu, many = torch.tensor(0.7), torch.ones(4)
        values, _, _ = self.logged({"critic": combination(imbalance=mu, simplex_weights=many)}, log_freq=1)
        assert values["grad/critic/imbalance"] == 6.0
        assert values["combiner/critic/imbalance"] == pytest.approx(0.7)
        assert not any("simplex" in key for key in values)

    def test_main_chooses_what_has_the_plain_names(self):
        combinations = {"actor": combination(gramian=False), "critic": combination()}
        assert "grad/cos_min" not in self.logged(combinations, log_freq=1, main="actor")[0]
        assert "combiner/residual" in self.logged(combinations, log_freq=1, main="actor")[0]
        values = self.logged(combinations, log_freq=1, main=None)[0]
        plain = [key for key in values if key.split("/")[1] not in ("actor", "critic")]
        assert [key for key in plain if key.startswith(("grad", "combiner"))] == []

    def test_methods_without_gramian_or_weights(self):
        values, _, _ = self.logged({"critic": combination(weights=False, gramian=False)}, log_freq=1)
        found = sorted(key for key in values if key.startswith(("grad/", "combiner/critic")))
        assert found == ["combiner/critic/residual", "combiner/critic/status"]

    def test_nothing_before_the_first_update_nor_between_two_records(self):
        assert not any(key.startswith(("grad", "combiner")) for key in self.logged({}, log_freq=1)[0])
        assert not any(key.startswith("grad") for key in self.logged({"critic": combination()}, log_freq=5)[0])

    def test_another_number_of_tasks_is_refused(self):
        wrong = Combination(torch.zeros(3), torch.ones(3), torch.tensor(0.0), torch.tensor(0))
        with pytest.raises(TaskMismatchError, match="combiner/critic/weight has 3 values"):
            self.logged({"critic": wrong}, log_freq=1)


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


class Clock:
    """Advances by ``tick`` seconds whenever it is read."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


class TestProgress:
    def run(self, terminal, steps=60, tick=1.0, env=None, fail=False, **options):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, color_system=None, width=100)
        model, _ = make_sac(env)
        callback = MTProgressBarCallback(console=console, **options)
        callback._clock = Clock(tick)
        stop = Child() if fail else None
        try:
            model.learn(steps * NUM_ENVS, CallbackList([callback, stop] if stop else [callback]))
        except AttributeError:
            assert fail
        return callback, file.getvalue()

    def test_lines_where_there_is_no_terminal(self):
        callback, text = self.run(terminal=False, line_every=20.0)
        lines = text.splitlines()
        # One clock reading a step: drawn after 20, 40 and 60 of them, and at the end.
        assert [line.split()[0] for line in lines] == ["80/240", "160/240", "240/240", "240/240"]
        assert "(33%)  4 steps/s  0:00:20 gone, 0:00:40 left  success -  (right -" not in lines[0]
        assert "(33%)  4 steps/s  0:00:20 gone, 0:00:40 left" in lines[0]
        assert "\x1b" not in text
        assert lines[0].endswith("(" + ", ".join(f"{name} -" for name in TASKS) + ")")
        rates = {name: np.mean(found) for name, found in callback.successes.items()}
        assert lines[-1].endswith("(" + ", ".join(f"{n} {rate:.2f}" for n, rate in rates.items()) + ")")
        assert f"success {np.mean(list(rates.values())):.2f}" in lines[-1]

    def test_success_is_that_of_the_latest_episodes_of_each_task(self):
        env = make_vec_env("toy-reach", seed=0, num_envs_per_task=2, horizon=5)
        finished, rng = {name: [] for name in TASKS}, np.random.default_rng(0)
        step_wait = env.step_wait

        def watched():
            result = step_wait()
            for i in np.flatnonzero(result[2]):
                result[3][i]["is_success"] = bool(rng.random() < 0.5)
                finished[TASKS[i // 2]].append(result[3][i]["is_success"])
            return result

        env.step_wait = watched
        callback, _ = self.run(terminal=False, steps=100, env=env, window=7)
        assert {name: list(found) for name, found in callback.successes.items()} == {
            name: found[-7:] for name, found in finished.items()
        }
        assert all(len(found) == 20 and len(set(found)) == 2 for found in finished.values())

    def test_live_view_on_a_terminal(self):
        callback, text = self.run(terminal=True, refresh=30.0)
        assert "\x1b[?25l" in text  # cursor hidden
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # and shown again
        assert text.count("120/240 (50%)") == 1
        assert "240/240 (100%)" in text
        last = text[text.rindex("240/240") :]
        for name, found in callback.successes.items():
            assert f"{np.mean(found):4.2f}" in last[last.index(name) :][:40]
        assert callback._live is None

    def test_a_training_that_breaks_gives_the_terminal_back_on_close(self):
        callback, text = self.run(terminal=True, fail=True)
        assert "\x1b[?25h" not in text
        callback.close()
        assert "\x1b[?25h" in callback.console.file.getvalue()
        callback.close()

    def test_speed_is_that_of_the_last_minute(self):
        callback, _ = self.run(terminal=False, line_every=1.0, steps=100)
        callback._clock.tick = 10.0  # slower now
        for _ in range(12):
            callback._draw(callback._clock())
        assert "  0 steps/s" in callback.console.file.getvalue().splitlines()[-1]

    def test_no_time_is_left_beyond_the_end(self):
        callback, _ = self.run(terminal=False, line_every=1.0, steps=20)
        callback._total = 60  # of 80: the last rollout was a whole one
        assert "80/60 (133%)" in callback._line(callback._clock())
        assert "0:00:00 left" in callback._line(callback._clock())

    def test_many_tasks_take_no_more_than_a_line(self):
        callback, _ = self.run(terminal=False)
        callback.successes = {f"task-{k}": deque([float(k < 20)]) for k in range(50)}
        callback.successes["task-49"].clear()
        callback._draw(callback._clock())
        line = callback.console.file.getvalue().splitlines()[-1]
        assert line.endswith("(20 of 50 tasks at 0.9 or more, 29 at 0)")

    def test_the_live_view_fits_a_narrow_terminal(self):
        file = io.StringIO()
        model, _ = make_sac()
        callback = MTProgressBarCallback(console=Console(file=file, force_terminal=True, color_system=None, width=80))
        callback._clock = Clock(30_000.0)
        model.learn(NUM_ENVS, callback)
        callback._total, callback.num_timesteps = 20_000_000, 12_345_678
        callback._began, callback._marks = 0.0, deque([(0.0, 12_000_000)])
        headline = callback._headline(60.0)
        assert headline == "12.35M/20.00M (62%)  5,761 steps/s  0:01:00 gone, 0:22:09 left  success -"
        assert len(headline) < 80
        lines = [re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", line) for line in file.getvalue().splitlines()]
        assert max(map(len, lines)) <= 80
        assert "4/4 (100%)  0 steps/s" in lines[-6]
        assert [line.split()[0] for line in lines[-5:-1]] == TASKS

    def test_any_environment(self):
        file = io.StringIO()
        model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=100, buffer_size=100)
        model.learn(3, MTProgressBarCallback(console=Console(file=file, width=80)))
        assert file.getvalue().startswith("3/3 (100%)")
        assert file.getvalue().endswith("success -  (task -)\n")


def test_a_combiner_that_needs_no_gradients_is_diagnosed_all_the_same():
    env = make_vec_env("toy-reach", seed=0)
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 0, "batch_size": 8, "seed": 0, "device": "cpu"}
    agent = MTSAC("MlpPolicy", env, combiner="linear_scalarization", **kwargs)
    agent.learn(11 * NUM_ENVS, GradientDiagnosticsCallback(log_freq=10), log_interval=None)
    values = agent.logger.name_to_value
    assert -1 <= values["grad/critic/cos_min"] <= 1
    assert values[f"grad/actor/norm/{TASKS[0]}"] > 0
    assert agent.last_combinations["critic"].gramian is None, "only the recorded update pays for it"
