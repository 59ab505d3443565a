import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecEnv

from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import (
    ArgumentError,
    CheckpointError,
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
)
from mtrl_imgrad.evaluation import files as module
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.statistics import success_interval, wilson_interval
from mtrl_imgrad.evaluation.success import evaluate_success


class ScriptedVecEnv(VecEnv):
    """Environment i plays ``scripts[i]`` in a loop: episodes given as the successes of their steps.

    A step's reward is 1 + its environment's index; observations count the steps since the last reset.
    """

    def __init__(self, task_ids, scripts, task_names=("easy", "hard"), key="success", last_info=None):
        space = spaces.Box(-1.0, 1.0, (1,))
        super().__init__(len(scripts), space, space)
        self.task_ids, self.task_names = np.array(task_ids), list(task_names)
        self.scripts, self.key, self.last_info = scripts, key, last_info or {}
        self.resets = 0

    def reset(self):
        self.resets += 1
        self.at = [(0, 0)] * self.num_envs
        self.count = 0
        return np.zeros((self.num_envs, 1), np.float32)

    def step_async(self, actions):
        self.count += 1

    def step_wait(self):
        dones, infos = np.zeros(self.num_envs, bool), []
        for i, (episode, step) in enumerate(self.at):
            steps = self.scripts[i][episode % len(self.scripts[i])]
            infos.append({self.key: steps[step]} if self.key else {})
            dones[i] = step + 1 == len(steps)
            self.at[i] = (episode + 1, 0) if dones[i] else (episode, step + 1)
            if dones[i]:
                infos[i].update(self.last_info)
        observations = np.full((self.num_envs, 1), self.count, np.float32)
        return observations, 1.0 + np.arange(self.num_envs), dones, infos

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        return [None] * self.num_envs  # SB3 asks for render_mode

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


class Agent:
    """Does as ``act`` says."""

    def __init__(self, act=np.zeros_like, **attributes):
        self.act = act
        vars(self).update(attributes)

    def predict(self, observation, *, deterministic=False):
        return self.act(observation), None


YES, NO = [False, True], [False] * 10


class TestEpisodes:
    def test_short_episodes_count_no_more_often_than_they_happen(self):
        # Both copies fail and succeed in turn; the failures are five times as long. The first ten episodes to
        # finish would hold more of the copy that only succeeds.
        env = ScriptedVecEnv([0, 0, 1], [[YES], [NO], [YES, NO]])
        report = evaluate_success(Agent(), env, n_episodes=10)
        assert report.success_rate.tolist() == [0.5, 0.5]
        assert report.lengths[0].tolist() == [2] * 5 + [10] * 5
        assert report.lengths[1].tolist() == [2, 10] * 5

    @pytest.mark.parametrize(("n", "shares"), [(1, [0, 0, 1]), (4, [1, 1, 2]), (6, [2, 2, 2])])
    def test_episodes_are_shared_out_as_evenly_as_they_can_be(self, n, shares):
        env = ScriptedVecEnv([0, 0, 0, 1], [[[True]]] * 4)
        report = evaluate_success(Agent(), env, n_episodes=n)
        assert report.returns[0].tolist() == np.repeat([1.0, 2.0, 3.0], shares).tolist()
        assert report.successes.shape == (2, n)

    def test_copies_need_not_be_next_to_each_other(self):
        report = evaluate_success(Agent(), ScriptedVecEnv([1, 0, 1], [[[True]]] * 3), n_episodes=2)
        assert report.returns.tolist() == [[2.0, 2.0], [1.0, 3.0]]

    @pytest.mark.parametrize("key", ["success", "is_success"])
    def test_success_at_any_step_counts_and_is_forgotten_with_the_episode(self, key):
        script = [[False, True, False], [False, False, False]]
        report = evaluate_success(Agent(), ScriptedVecEnv([0, 1], [script, script], key=key), n_episodes=4)
        assert report.successes.tolist() == [[True, False, True, False]] * 2

    def test_a_task_that_never_tells_of_success_has_no_rate_but_returns(self):
        report = evaluate_success(Agent(), ScriptedVecEnv([0, 1], [[YES]] * 2, key=None), 3)
        assert np.isnan([*report.success_rate, report.mean_success, *report.mean_interval]).all()
        assert report.returns.tolist() == [[2.0] * 3, [4.0] * 3]
        summary = json.loads(report.to_json())
        assert summary["mean_success"] is summary["mean_interval"] is summary["tasks"]["easy"]["success_rate"] is None

    def test_how_the_episodes_were_run_is_kept(self, tmp_path):
        env = make_vec_env("toy-reach", seed=5)
        agent = Agent(env.optimal_action, num_timesteps=70)
        report = evaluate_success(agent, env, 1, deterministic=False)
        assert report.protocol == EvaluationProtocol(False, "toy", 5, 70)
        assert SuccessReport.load(report.save(tmp_path / "r")).protocol == report.protocol
        assert json.loads(report.to_json())["simulator"] == "toy"
        assert str(report.protocol) == "agent after 70 steps, sampled actions, on toy, evaluation seed 5"

    def test_success_may_be_a_float_and_nan_is_none(self):
        scripts = [[[0.0, 1.0]], [[0.0, np.nan]]]
        assert evaluate_success(Agent(), ScriptedVecEnv([0, 1], scripts), 1).success_rate.tolist() == [
            1.0,
            0.0,
        ]

    def test_the_monitor_s_return_and_length_are_believed(self):
        # A wrapper that scales rewards sits outside of what writes "episode".
        env = ScriptedVecEnv([0, 1], [[YES]] * 2, last_info={"episode": {"r": 77.0, "l": 5, "t": 0.0}})
        report = evaluate_success(Agent(), env, n_episodes=2)
        assert report.returns.tolist() == [[77.0, 77.0]] * 2
        assert report.lengths.tolist() == [[5, 5]] * 2

    def test_progress_bar_counts_the_episodes(self, capsys):
        evaluate_success(Agent(), ScriptedVecEnv([0, 1], [[YES]] * 2), n_episodes=3, progress_bar=True)
        assert "6/6" in capsys.readouterr().out


class TestRealEnvironment:
    def test_the_optimal_agent_of_the_toy_set(self):
        env = make_vec_env("toy-reach", seed=3, num_envs_per_task=2)
        expected = env.optimal_return(env.reset())
        env.seed(3)
        report = evaluate_success(Agent(env.optimal_action), env, n_episodes=2)
        assert report.task_names == tuple(env.task_names)
        assert report.mean_success == 1.0
        assert (report.lengths == env.horizon).all()
        np.testing.assert_allclose(report.returns.ravel(), expected, rtol=1e-6)

    def test_wrapped(self):
        env = make_vec_env("toy-reach", seed=3)
        plain = evaluate_success(Agent(env.optimal_action), env, n_episodes=2)
        env.seed(3)
        assert_same(evaluate_success(Agent(env.optimal_action), VecCheckNan(env), n_episodes=2), plain)

    def test_same_episodes_as_sb3_s_evaluate_policy(self):
        model = SAC("MlpPolicy", make_vec_env("toy-reach", seed=0), seed=0, buffer_size=10)
        report = evaluate_success(model, make_vec_env("toy-reach", seed=1), n_episodes=3)
        returns, lengths = evaluate_policy(
            model, make_vec_env("toy-reach", seed=1), n_eval_episodes=12, return_episode_rewards=True
        )
        np.testing.assert_allclose(report.returns.T.ravel(), returns)
        np.testing.assert_array_equal(report.lengths.T.ravel(), lengths)

    def test_leaves_the_torch_generator_alone_even_where_actions_are_drawn(self):
        model = SAC("MlpPolicy", make_vec_env("toy-reach", seed=0), seed=0, buffer_size=10)
        state = torch.get_rng_state()
        env = make_vec_env("toy-reach", seed=1)
        first = evaluate_success(model, env, n_episodes=1, deterministic=False)
        assert torch.equal(torch.get_rng_state(), state)
        second = evaluate_success(model, make_vec_env("toy-reach", seed=1), n_episodes=1, deterministic=True)
        assert (first.returns != second.returns).all()

    def test_sampled_actions_differ_between_evaluations_unless_they_are_given_a_seed(self):
        model = SAC("MlpPolicy", make_vec_env("toy-reach", seed=0), seed=0, buffer_size=10)

        def returns(seed=None):
            env = make_vec_env("toy-reach", seed=1)
            return evaluate_success(model, env, n_episodes=1, deterministic=False, seed=seed).returns

        assert (returns() != returns()).any()
        assert (returns(seed=3) == returns(seed=3)).all()
        assert (returns(seed=3) != returns(seed=4)).any()


class TestRefusals:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_training_environment(self, wrapped):
        env = make_vec_env("toy-reach", seed=0)
        model = SAC("MlpPolicy", env, buffer_size=10)
        with pytest.raises(ArgumentError, match="the environment the agent trains in"):
            evaluate_success(model, VecCheckNan(env) if wrapped else env)

    def test_other_tasks(self):
        env = ScriptedVecEnv([0, 1], [[YES]] * 2)
        with pytest.raises(TaskMismatchError, match=r"made for \['hard', 'easy'\].*same tasks in another order"):
            evaluate_success(Agent(task_names=["hard", "easy"]), env)
        with pytest.raises(TaskMismatchError, match=r"made for \['a'\], env has \['easy', 'hard'\]$"):
            evaluate_success(Agent(task_names=("a",)), env)
        assert env.resets == 0

    def test_other_observations(self):
        model = SAC("MlpPolicy", make_vec_env("toy-reach", seed=0), buffer_size=10)
        with pytest.raises(TaskMismatchError, match=r"\(8,\), env gives \(4,\)"):
            evaluate_success(model, make_vec_env("toy-reach", seed=1, one_hot=False))

    @pytest.mark.parametrize(("ids", "names"), [([0, 0], ["a", "b"]), ([0, 2], ["a", "b"]), ([0], ["a"]), ([], [])])
    def test_environment_without_a_task_for_each(self, ids, names):
        with pytest.raises(ArgumentError, match="multi-task vector environment"):
            evaluate_success(Agent(), ScriptedVecEnv(ids, [[YES]] * 2, names))

    @pytest.mark.parametrize("options", [{"n_episodes": 0}, {"confidence": 1.0}])
    def test_arguments(self, options):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            evaluate_success(Agent(), ScriptedVecEnv([0, 1], [[YES]] * 2), **options)

    def test_nan_action_names_task_and_step(self):
        def act(observations):
            return np.where([[False], [True], [False]] & (observations >= 13), np.nan, 0.0)

        env = ScriptedVecEnv([0, 1, 1], [[NO]] * 3)
        with pytest.raises(NonFiniteError, match=r"'hard' \(environment 1\) at step 3 .* 13 steps .*was finite"):
            evaluate_success(Agent(act), env)

    def test_nan_action_after_a_nan_observation_says_so(self):
        env = ScriptedVecEnv([0, 1], [[NO]] * 2)
        env.reset = lambda: np.array([[np.nan], [0.0]])
        with pytest.raises(NonFiniteError, match=r"'easy'.*not all finite"):
            evaluate_success(Agent(np.array), env)

    def test_environment_that_tells_of_success_in_some_episodes_only(self):
        env = ScriptedVecEnv([0, 1], [[YES, [None, None]], [NO]])
        step_wait = env.step_wait

        def silent():
            observations, rewards, dones, infos = step_wait()
            return observations, rewards, dones, [{k: v for k, v in info.items() if v is not None} for info in infos]

        env.step_wait = silent
        with pytest.raises(
            EnvironmentFaultError, match=r"task 'easy'.*no info of this episode .* some of an earlier one"
        ):
            evaluate_success(Agent(), env, n_episodes=2)

    @pytest.mark.parametrize("value", [None, "yes", np.zeros(2), [True], {}])
    def test_success_of_a_wrong_type(self, value):
        with pytest.raises(
            EnvironmentFaultError, match=r"task 'easy' .*info\['success'\] must be True, False or a number"
        ):
            evaluate_success(Agent(), ScriptedVecEnv([0, 1], [[[value]], [NO]]))

    def test_environment_that_outlasts_its_horizon(self):
        env = ScriptedVecEnv([0, 1], [[YES], [NO]])
        env.horizon = 9
        with pytest.raises(EnvironmentFaultError, match=r"'hard'.*no end of the episode after 9 steps"):
            evaluate_success(Agent(), env)

    def test_nan_return(self):
        env = ScriptedVecEnv([0, 1], [[YES]] * 2, last_info={"episode": {"r": np.nan, "l": 2}})
        with pytest.raises(EnvironmentFaultError, match=r"'easy'.*return is nan"):
            evaluate_success(Agent(), env)


def make_report(seed=0, names=("reach", "push", "näher"), n=20, confidence=0.9):
    rng = np.random.default_rng(seed)
    shape = (len(names), n)
    return SuccessReport(
        names, rng.random(shape) < 0.4, rng.normal(size=shape), rng.integers(1, 500, shape), confidence
    )


def assert_same(a, b):
    assert (a.task_names, a.confidence) == (b.task_names, b.confidence)
    for name in ("successes", "returns", "lengths"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


class TestReport:
    def test_numbers(self):
        report = SuccessReport(("a", "b"), np.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool), np.eye(2, 4), np.ones((2, 4)))
        assert report.num_episodes == 4
        assert report.success_rate.tolist() == [0.25, 1.0]
        assert report.mean_success == 0.625
        np.testing.assert_array_equal(report.intervals, wilson_interval([1, 4], 4))
        assert report.mean_interval == success_interval(report.successes)
        assert report.lengths.dtype == np.int64

    def test_cannot_be_changed(self):
        report = make_report()
        with pytest.raises(ValueError, match="read-only"):
            report.successes[0, 0] = True

    @pytest.mark.parametrize(
        ("field", "value", "match"),
        [
            ("successes", np.ones((2, 3)), "successes must be bool"),
            ("successes", np.ones(3, bool), "successes must be"),
            ("returns", np.ones((2, 4)), r"returns must be .* \(2, 3\) for these task_names, got \(2, 4\)"),
            ("lengths", np.ones((3, 3)), "lengths must be"),
            ("task_names", ("a",), "successes must be"),
        ],
    )
    def test_refuses_wrong_shapes(self, field, value, match):
        good = {
            "task_names": ("a", "b"),
            "successes": np.ones((2, 3), bool),
            "returns": np.ones((2, 3)),
            "lengths": np.ones((2, 3)),
        }
        with pytest.raises(ArgumentError, match=match):
            SuccessReport(**{**good, field: value})

    @pytest.mark.parametrize("name", ["run.1", "run.1.npz", "deep/er/run"])
    def test_saved_and_loaded_it_is_the_same(self, tmp_path, name):
        report = make_report()
        path = report.save(tmp_path / name)
        assert path == tmp_path / (name.removesuffix(".npz") + ".npz")
        assert_same(SuccessReport.load(tmp_path / name), report)
        with np.load(path, allow_pickle=False) as archive:
            assert all(archive[member].dtype != object for member in archive.files)
        summary = json.loads(path.with_name(path.name.replace(".npz", ".json")).read_text(encoding="utf-8"))
        assert summary == json.loads(report.to_json())

    def test_json(self):
        report = make_report()
        summary = json.loads(report.to_json())
        assert summary["mean_success"] == report.mean_success
        assert summary["mean_interval"] == list(report.mean_interval)
        assert summary["episodes_per_task"] == 20
        assert list(summary["tasks"]) == list(report.task_names)
        push = summary["tasks"]["push"]
        assert push["success_rate"] == report.success_rate[1]
        assert push["interval"] == report.intervals[1].tolist()
        assert push["mean_return"] == pytest.approx(report.returns[1].mean())
        assert push["mean_length"] == pytest.approx(report.lengths[1].mean())

    def test_a_mean_is_of_the_tasks_that_have_a_notion_of_success(self):
        successes = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool)
        report = SuccessReport(
            ("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.array([True, False])
        )
        assert report.mean_success == 0.25
        assert report.mean_interval == success_interval(successes[:1])
        assert np.isnan(report.intervals[1]).all()
        with pytest.raises(ArgumentError, match=r"has_success is False for task 'a', which has successes"):
            SuccessReport(("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.zeros(2, bool))
        with pytest.raises(ArgumentError, match=r"has_success must be bool"):
            SuccessReport(("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.zeros(3, bool))

    def test_prints_as_a_table(self):
        lines = str(make_report()).splitlines()
        assert [line.split()[0] for line in lines if "[" in line] == ["reach", "push", "näher", "mean"]


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


class TestFiles:
    def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        report = make_report()
        path = report.save(tmp_path / "run")
        before = path.read_bytes()

        def fail(file, **arrays):
            file.write(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(module.np, "savez_compressed", fail)
        with pytest.raises(OSError, match="no space"):
            make_report(seed=1).save(tmp_path / "run")
        assert path.read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "run.npz"]

    @pytest.mark.parametrize("keep", [0, 10, 0.5])
    def test_a_torn_file_is_named(self, tmp_path, keep):
        path = make_report().save(tmp_path / "run")
        content = path.read_bytes()
        path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
        with pytest.raises(CheckpointError, match=r"run\.npz"):
            SuccessReport.load(path)

    def test_no_flipped_bit_changes_what_is_read(self, tmp_path):
        report = make_report(n=3)
        path = report.save(tmp_path / "run")
        content = path.read_bytes()
        for i in range(0, len(content), 5):
            path.write_bytes(content[:i] + bytes([content[i] ^ 0x81]) + content[i + 1 :])
            with suppress(CheckpointError):
                assert_same(SuccessReport.load(path), report)

    def test_a_pickle_is_not_opened(self, tmp_path):
        path = tmp_path / "run.npz"
        members = {"successes": np.ones((1, 1), bool), "returns": np.ones((1, 1)), "lengths": np.ones((1, 1))}
        np.savez(path, task_names=np.array(["a"], dtype=object), confidence=0.9, **members)
        with pytest.raises(CheckpointError, match="pickle"):
            SuccessReport.load(path)

    def test_missing_members_are_named(self, tmp_path):
        path = make_report().save(tmp_path / "run")
        with pytest.raises(CheckpointError, match="lacks \\['timesteps'\\]"):
            EvaluationHistory.load(path)

    def test_no_file_is_no_damaged_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            SuccessReport.load(tmp_path / "none")
