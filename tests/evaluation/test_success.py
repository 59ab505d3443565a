"""Episodes of an evaluation: which count, of which environments, and what is refused."""

import json

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
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
)
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success
from tests.support.evaluation.reports import assert_same


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
