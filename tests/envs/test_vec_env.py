"""The shared half of every back-end, on one whose observations, rewards and successes are dictated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from mtrl_imgrad.envs import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError, NonFiniteError

TASKS = ["a", "b", "c"]


class Scripted(MultiTaskVecEnv):
    """Row i's state is [i, steps of its episode, episodes so far]; tests set rewards and successes."""

    backend = "scripted"

    def __init__(self, **options: Any) -> None:
        super().__init__(
            TASKS,
            state_space=spaces.Box(-np.inf, np.inf, (3,), dtype=np.float32),
            action_space=spaces.Box(-1.0, 1.0, (2,), dtype=np.float32),
            **options,
        )
        self.state = np.zeros((self.num_envs, 3))
        self.state[:, 0] = np.arange(self.num_envs)
        self.rewards = np.ones(self.num_envs)
        self.success = np.zeros(self.num_envs, dtype=bool)
        self.seeds: list[int] = []
        self.closed = 0

    def _seed_rows(self, seed: int) -> None:
        self.seeds.append(seed)

    def _reset_rows(self, rows: np.ndarray) -> np.ndarray:
        self.state[rows, 1] = 0
        self.state[rows, 2] += 1
        return self.state[rows]

    def _send(self, actions: np.ndarray) -> None:
        self.state[:, 1] += 1

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.state.copy(), self.rewards.copy(), self.success.copy()

    def _close_rows(self) -> None:
        self.closed += 1


def step(env: Scripted, success: tuple[int, ...] = ()) -> tuple[Any, ...]:
    env.success[:] = False
    env.success[list(success)] = True
    return env.step(np.zeros((env.num_envs, 2)))


def test_rows_are_task_major_and_the_one_hot_comes_last() -> None:
    env = Scripted(num_envs_per_task=2)
    observations = env.reset()
    assert env.task_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert env.get_attr("task_name") == ["a", "a", "b", "b", "c", "c"]
    assert observations.dtype == np.float32
    assert observations.shape == (6, 6)
    np.testing.assert_array_equal(observations[:, 0], np.arange(6))
    np.testing.assert_array_equal(observations[:, 3:], np.eye(3)[env.task_ids])
    assert env.observation_space.contains(observations[0])
    np.testing.assert_array_equal(env.observation_space.low[3:], 0.0)
    np.testing.assert_array_equal(env.observation_space.high[3:], 1.0)


def test_without_the_one_hot() -> None:
    env = Scripted(one_hot=False)
    assert env.reset().shape == (3, 3)
    assert env.observation_space.shape == (3,)


def test_the_horizon_truncates_and_restarts_within_the_step() -> None:
    env = Scripted(horizon=3)
    env.reset()
    for _ in range(2):
        _, _, dones, infos = step(env)
        assert not dones.any()
        assert not any(info["TimeLimit.truncated"] or "terminal_observation" in info for info in infos)
    observations, rewards, dones, infos = step(env)
    assert dones.all()
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(observations[:, 1], 0)  # the next episode's first observation
    np.testing.assert_array_equal(observations[:, 2], 2)
    for row, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["is_success"] is False
        assert info["episode"]["r"] == 3.0
        assert info["episode"]["l"] == 3
        terminal = info["terminal_observation"]
        assert terminal.dtype == np.float32
        np.testing.assert_array_equal(terminal[:3], [row, 3, 1])
        np.testing.assert_array_equal(terminal[3:], np.eye(3)[row])
    assert not step(env)[2].any()


def test_success_is_of_the_step_but_is_success_of_the_episode() -> None:
    env = Scripted(horizon=3)
    env.reset()
    assert [info["success"] for info in step(env, success=(1,))[3]] == [False, True, False]
    assert [info["success"] for info in step(env)[3]] == [False, False, False]
    infos = step(env, success=(2,))[3]
    assert [info["success"] for info in infos] == [False, False, True]
    assert [info["is_success"] for info in infos] == [False, True, True]
    for _ in range(2):
        step(env)
    assert [info["is_success"] for info in step(env)[3]] == [False] * 3  # not kept into the next episode


def test_terminate_on_success_terminates_only_the_successful_rows() -> None:
    env = Scripted(horizon=3, terminate_on_success=True)
    env.reset()
    step(env)
    observations, _, dones, infos = step(env, success=(1,))
    assert dones.tolist() == [False, True, False]
    assert infos[1]["TimeLimit.truncated"] is False
    assert infos[1]["is_success"] is True
    assert infos[1]["episode"]["l"] == 2
    assert observations[:, 1].tolist() == [2, 0, 2]
    _, _, dones, infos = step(env, success=(0,))  # success in the very step of the horizon terminates too
    assert dones.tolist() == [True, False, True]
    assert [infos[0]["TimeLimit.truncated"], infos[2]["TimeLimit.truncated"]] == [False, True]


def test_nothing_returned_is_overwritten_later() -> None:
    env = Scripted(horizon=2)
    first = env.reset()
    kept = [first.copy()]
    returned = [first]
    for _ in range(4):
        observations, rewards, dones, infos = step(env)
        for array in (observations, rewards, dones, *(i.get("terminal_observation", dones) for i in infos)):
            returned.append(array)
            kept.append(array.copy())
    for array, copy in zip(returned, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_bad_reward_is_named_by_task_environment_and_step(bad: float) -> None:
    env = Scripted(num_envs_per_task=2)
    env.reset()
    step(env)
    env.rewards[3] = bad
    with pytest.raises(EnvironmentFaultError, match=r"reward is .* task 'b', environment 3, step 2 of its episode"):
        step(env)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_observation_is_named_by_column_task_environment_and_step(bad: float) -> None:
    env = Scripted()
    env.reset()
    env.state[2, 0] = bad
    with pytest.raises(EnvironmentFaultError, match=r"observation\[0\].*task 'c', environment 2, step 1 "):
        step(env)
    with pytest.raises(EnvironmentFaultError, match="step 0"):
        env.reset()


def test_a_fault_ends_no_more_than_its_step() -> None:
    env = Scripted(horizon=5)
    env.reset()
    env.rewards[0] = np.nan
    with pytest.raises(EnvironmentFaultError):
        step(env)
    env.rewards[0] = 1.0
    with pytest.raises(EnvironmentFaultError, match="call reset first"):
        step(env)
    env.reset()
    for _ in range(5):
        infos = step(env)[3]
    assert [info["episode"]["r"] for info in infos] == [5.0] * 3


def test_actions_are_checked() -> None:
    env = Scripted()
    env.reset()
    with pytest.raises(ArgumentError, match=r"actions has shape \(3,\); \(3, 2\) expected"):
        env.step(np.zeros(3))
    actions = np.zeros((3, 2))
    actions[1, 0] = np.nan
    with pytest.raises(NonFiniteError, match="task 'b', environment 1"):
        env.step(actions)
    assert not step(env)[2].any()  # a refused action has begun no step


def test_order_of_calls() -> None:
    env = Scripted()
    with pytest.raises(EnvironmentFaultError, match="call reset first"):
        step(env)
    env.reset()
    with pytest.raises(EnvironmentFaultError, match="without a step_async"):
        env.step_wait()
    env.step_async(np.zeros((3, 2)))
    with pytest.raises(EnvironmentFaultError, match="before the previous step's step_wait"):
        env.step_async(np.zeros((3, 2)))
    env.reset()  # cancels the step under way
    assert step(env)[0][0, 1] == 1


def test_closing_twice_closes_once() -> None:
    env = Scripted()
    env.reset()
    env.close()
    env.close()
    assert env.closed == 1
    with pytest.raises(EnvironmentFaultError, match="closed"):
        env.reset()
    with pytest.raises(EnvironmentFaultError, match="closed"):
        step(env)


def test_seed_takes_effect_at_the_next_reset_and_only_where_needed() -> None:
    env = Scripted(seed=4)
    assert env.seed(4) == [4, 4, 4]  # what it was built with, and nothing drawn yet
    env.reset()
    assert env.seeds == []
    env.seed(4)
    env.reset()
    env.seed(9)
    env.reset()
    env.reset()
    assert env.seeds == [4, 9]
    drawn = env.seed(None)[0]
    assert isinstance(drawn, int)
    for wrong in (-1, 2**63, 1.5, True, "3", [1]):
        with pytest.raises(ArgumentError, match="seed must be an integer in"):
            env.seed(wrong)
    assert env.seed(np.int64(7)) == [7, 7, 7]


def test_there_are_no_options_of_a_reset() -> None:
    """They would be dropped: an episode follows from its seed, which is all that a checkpoint holds of it."""
    env = Scripted()
    for empty in (None, {}, [{}, {}, {}]):
        env.set_options(empty)
    for options in ({"goal": 1}, [{}, {"goal": 1}, {}], "goal"):
        with pytest.raises(ArgumentError, match="options must be empty, got .*goal"):
            env.set_options(options)


def test_single_environments_where_there_are_none() -> None:
    env = Scripted()
    assert env.get_attr("task_id", [0, 2]) == [0, 2]
    assert env.get_attr("task_name", 1) == ["b"]
    assert env.get_attr("horizon") == [500] * 3
    assert env.has_attr("horizon")
    assert not env.has_attr("no_such_thing")
    assert env.get_images() == [None] * 3
    with pytest.raises(ArgumentError, match="scripted"):
        env.set_attr("x", 1)
    with pytest.raises(ArgumentError, match="scripted"):
        env.env_method("x")


def test_environments_are_named_by_their_indices() -> None:
    env = Scripted()
    for indices, ids in ((-1, [2]), (np.int64(1), [1]), (np.array([2, 0]), [2, 0]), ([], []), (range(2), [0, 1])):
        assert env.get_attr("task_id", indices) == ids
    for wrong in (3, -4, [0, 3], "0", 1.5, [1.0], [True, False, True]):
        with pytest.raises(ArgumentError, match="indices must be of the 3 environments"):
            env.get_attr("task_id", wrong)


def test_attributes_have_names_and_ours_are_fixed() -> None:
    env = Scripted()
    for argument, call in {
        "attr_name must be a string": lambda: env.get_attr(3),
        "attr_name must be a string, got 4": lambda: env.set_attr(4, 0),
        "method_name must be a string": lambda: env.env_method(None),
        "wrapper_class must be": lambda: env.env_is_wrapped("Monitor"),
        "attr_name must not be 'task_name'": lambda: env.set_attr("task_name", "x"),
        "attr_name must not be 'render_mode'": lambda: env.set_attr("render_mode", "human"),
    }.items():
        with pytest.raises(ArgumentError, match=argument):
            call()


def test_sb3_takes_the_episode_statistics_for_monitors() -> None:
    from gymnasium.wrappers import TimeLimit
    from stable_baselines3.common.monitor import Monitor

    env = Scripted()
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(TimeLimit, [1]) == [False]
