"""What is logged of training episodes speaks of all tasks alike, whichever end first, last or most often."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.logger import KVWriter, Logger

from mtrl_imgrad import MTPPO, MTSAC, MTTD3, make_vec_env

HORIZON = 6


class Fixed(gym.Env):
    """Succeeds in its third step or never; its reward says which."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, succeeds):
        self.succeeds = succeeds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        success = self.succeeds and self.steps >= 3
        return np.zeros(1, np.float32), float(self.succeeds), False, False, {"success": success}


TASKS = {"never": lambda: Fixed(False), "always": lambda: Fixed(True)}
OPTIONS = {
    MTSAC: {"learning_starts": 10**6},
    MTTD3: {"learning_starts": 10**6},
    MTPPO: {"n_steps": 2 * HORIZON, "batch_size": 96, "n_epochs": 1, "gamma": 0.9},
}


class Kept(KVWriter):
    """The latest value of every key."""

    def __init__(self):
        self.values = {}

    def write(self, key_values, key_excluded, step=0):
        self.values.update(key_values)


def train(kind, **env_options):
    env = make_vec_env(TASKS, num_envs_per_task=4, horizon=HORIZON, seed=0, **env_options)
    options = {**OPTIONS[kind], "policy_kwargs": {"net_arch": [4]}, "seed": 0, "trace": False, "device": "cpu"}
    agent, kept = kind("MlpPolicy", env, stats_window_size=3, **options), Kept()
    agent.set_logger(Logger(None, [kept]))
    return agent.learn(8 * 2 * HORIZON, log_interval=1), kept.values


@pytest.mark.parametrize("kind", OPTIONS)
def test_tasks_in_the_last_rows_do_not_crowd_out_the_others(kind):
    """Eight environments end in one step, of which a window of three episodes held the last three."""
    agent, logged = train(kind)
    assert logged["rollout/success_rate/never"] == 0
    assert logged["rollout/success_rate/always"] == 1
    assert logged["rollout/success_rate"] == agent.train_success == 0.5
    assert logged["rollout/ep_rew_mean"] == HORIZON / 2
    assert agent.ep_info_buffer.maxlen == 8


@pytest.mark.parametrize("kind", OPTIONS)
def test_tasks_with_short_episodes_do_not_count_more(kind):
    _, logged = train(kind, terminate_on_success=True)
    assert logged["rollout/success_rate"] == 0.5


def test_one_task_has_the_window_that_it_was_given():
    env = make_vec_env({"always": TASKS["always"]}, num_envs_per_task=2, horizon=HORIZON)
    assert MTSAC("MlpPolicy", env, stats_window_size=3).learn(4).ep_info_buffer.maxlen == 3


def test_before_the_first_episode_there_is_no_rate():
    assert np.isnan(MTSAC("MlpPolicy", make_vec_env(TASKS, horizon=HORIZON)).train_success)
