"""Stable-Baselines3 on these environments: what it stores must be what happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from mtrl_imgrad.envs import MultiTaskVecEnv, make_vec_env
from mtrl_imgrad.envs.backends.toy import ToyReachVecEnv


def small_sac(env: VecEnv, **options: Any) -> SAC:
    settings = {"learning_starts": 20, "batch_size": 32, "policy_kwargs": {"net_arch": [32]}, "seed": 0}
    return SAC("MlpPolicy", env, device="cpu", **{**settings, **options})


class Recorder(BaseCallback):
    """Keeps the observations that followed every step."""

    def __init__(self) -> None:
        super().__init__()
        self.observations: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.observations.append(self.locals["new_obs"].copy())
        return True


def test_sac_stores_what_happened_on_either_back_end(three: MultiTaskVecEnv) -> None:
    model = small_sac(three)
    recorder = Recorder()
    model.learn(60, callback=recorder)
    buffer = model.replay_buffer
    assert buffer is not None
    assert buffer.pos == 20
    ends = buffer.dones[:20].astype(bool)
    np.testing.assert_array_equal(np.flatnonzero(ends.all(axis=1)), [9, 19])
    assert buffer.timeouts[:20].astype(bool)[ends].all()  # so that the value is bootstrapped through the horizon
    # Within an episode transitions chain; across its end they do not, and the next one starts with the
    # reset's.
    chained = (buffer.next_observations[:19] == buffer.observations[1:20]).all(axis=2)
    np.testing.assert_array_equal(chained, ~ends[:19])
    np.testing.assert_array_equal(recorder.observations[9], buffer.observations[10])
    assert len(model.ep_info_buffer or []) == 6
    assert len(model.ep_success_buffer or []) == 6


def test_the_agents_seed_decides_the_episodes() -> None:
    """SB3 seeds the environment with the agent's seed, whatever it was built with."""
    goals = []
    for built_with in (0, 1):
        env = make_vec_env("toy-reach", seed=built_with)
        model = small_sac(env, seed=7)
        model.learn(40)
        assert model.replay_buffer is not None
        goals.append(model.replay_buffer.observations[:10].copy())
    np.testing.assert_array_equal(goals[0], goals[1])


def test_evaluate_policy_needs_no_monitor() -> None:
    env = make_vec_env("toy-reach", horizon=5)
    model = small_sac(env)
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=8, return_episode_rewards=True)
    assert lengths == [5] * 8
    assert len(returns) == 8


def test_sb3s_own_wrappers_go_around() -> None:
    with pytest.warns(UserWarning, match="already wrapped"):
        env = VecMonitor(make_vec_env("toy-reach", horizon=5))
    env.reset()
    for _ in range(5):
        infos = env.step(np.zeros((4, 2)))[3]
    assert infos[0]["episode"]["l"] == 5
    assert env.get_attr("task_name")[1] == "toy-reach/up"
    assert env.unwrapped.num_tasks == 4
    env.close()


class Nearing(ToyReachVecEnv):
    """toy-reach with the way gained as its reward: what an action is worth shows in the step, so learning is fast."""

    def gaps(self) -> np.ndarray:
        return np.abs(self._state[:, 2:] - self._state[:, :2]).sum(axis=1)

    def _send(self, actions: np.ndarray) -> None:
        self.before = self.gaps()
        super()._send(actions)

    def _recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        state, _, success = super()._recv()
        return state, 10 * (self.before - self.gaps()), success


@pytest.mark.portable
def test_sac_learns_to_reach(learning_seed: int, record_property: Any) -> None:
    """What is left of the way at the end of an episode; an agent that learned nothing stays about where it was."""
    env = Nearing(["toy-reach/left"], seed=learning_seed, num_envs_per_task=8)
    model = small_sac(
        env,
        policy_kwargs={"net_arch": [32, 32]},
        learning_rate=1e-2,
        batch_size=64,
        learning_starts=200,
        ent_coef=0.1,
        gamma=0.5,
        seed=learning_seed,
    )
    model.learn(300 * 8)
    env = Nearing(["toy-reach/left"], seed=100, num_envs_per_task=16)
    observations = env.reset()
    way = env.gaps()
    for _ in range(env.horizon - 1):
        observations = env.step(model.predict(observations, deterministic=True)[0])[0]
    left = float(env.gaps().sum() / way.sum())
    record_property("reached", left)
    assert left < 0.5  # .02 to .14 with ten seeds under each of three instruction sets; about 1 untrained
