from __future__ import annotations

import numpy as np
import pytest

from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.envs.backends.toy import ToyReachVecEnv


def make(**options: object) -> ToyReachVecEnv:
    env = make_vec_env("toy-reach", **options)  # type: ignore[arg-type]
    assert isinstance(env, ToyReachVecEnv)
    return env


def test_the_optimal_policy_earns_the_optimal_return_and_succeeds_everywhere() -> None:
    env = make(seed=3, num_envs_per_task=5)
    observations = env.reset()
    promised = env.optimal_return(observations)
    for _ in range(env.horizon):
        observations, _, dones, infos = env.step(env.optimal_action(observations))
    assert dones.all()
    earned = np.array([info["episode"]["r"] for info in infos])
    np.testing.assert_allclose(earned, promised, rtol=1e-5)
    assert all(info["is_success"] for info in infos)


def test_no_other_policy_earns_more() -> None:
    env = make(seed=0, num_envs_per_task=4)
    promised = env.optimal_return(env.reset())
    rng = np.random.default_rng(0)
    for noise in (0.1, 0.5, 2.0):
        env.seed(0)
        observations = env.reset()
        for _ in range(env.horizon):
            best = env.optimal_action(observations)
            actions = np.clip(best + noise * rng.normal(size=best.shape), -1, 1)
            observations, _, _, infos = env.step(actions)
        earned = np.array([info["episode"]["r"] for info in infos])
        assert (earned < promised).all()


def test_the_same_action_moves_each_task_its_own_way_at_its_own_scale() -> None:
    env = make()
    before = env.reset()
    after, rewards, _, _ = env.step(np.tile([0.5, 0.0], (4, 1)))
    moves = (after - before)[:, :2]
    np.testing.assert_allclose(moves, 0.05 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]), atol=1e-6)
    closeness = 1 - np.abs(after[:, 2:4] - after[:, :2]).sum(axis=1) / 4
    np.testing.assert_allclose(rewards, [1, 10, 100, 0.1] * closeness, rtol=1e-5)


def test_the_square_is_left_by_nobody_and_covered_by_the_space() -> None:
    env = make(num_envs_per_task=3)
    observations = env.reset()
    for _ in range(40):
        observations = env.step(np.ones((12, 2)) * 5)[0]
        assert all(env.observation_space.contains(row) for row in observations)


def test_success_is_nearness() -> None:
    env = make(seed=1, terminate_on_success=True)
    observations = env.reset()
    for _ in range(env.horizon):
        last = observations
        observations, _, dones, infos = env.step(env.optimal_action(last))
        for row in np.flatnonzero(dones):
            terminal = infos[row]["terminal_observation"]
            assert np.abs(terminal[2:4] - terminal[:2]).sum() < 0.05
            assert not infos[row]["TimeLimit.truncated"]


def test_seeds() -> None:
    first, second, other = make(seed=5), make(seed=5), make(seed=6)
    np.testing.assert_array_equal(first.reset(), second.reset())
    assert np.abs(first.reset() - other.reset())[:, :4].max() > 0.01
    first.seed(6)
    other.seed(6)
    np.testing.assert_array_equal(first.reset(), other.reset())
    starts = make(seed=0, num_envs_per_task=3).reset()[:, :4]
    assert len(np.unique(starts, axis=0)) == 12  # every environment has a stream of its own


def test_a_stream_does_not_depend_on_the_number_of_copies() -> None:
    few, many = make(seed=2).reset(), make(seed=2, num_envs_per_task=3).reset()
    np.testing.assert_array_equal(few[:, :4], many[::3, :4])


@pytest.mark.parametrize("task", ["toy-reach/left", ["toy-reach/down", "toy-reach/up"]])
def test_selections(task: str | list[str]) -> None:
    env = make_vec_env(task, one_hot=True)
    assert isinstance(env, ToyReachVecEnv)
    count = 1 if isinstance(task, str) else 2
    assert env.reset().shape == (count, 4 + count)
    assert env.reward_scales.tolist() == ([100.0] if count == 1 else [0.1, 10.0])
    assert env.horizon == 25
    assert env.backend == "toy"
