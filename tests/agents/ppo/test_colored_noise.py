"""Noise that is correlated in time: its law, and how MTPPO explores with it."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule

from mtrl_imgrad import MTPPO
from mtrl_imgrad.agents.ppo.colored_noise import colored_noise
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.rl.agent_config import agent_config


def _agent(**kwargs):
    env = make_vec_env("toy-reach", seed=0, num_envs_per_task=2)
    options = {"policy_kwargs": {"net_arch": [8]}, "n_steps": 16, "batch_size": 64, "n_epochs": 1, "trace": False}
    return MTPPO("MlpPolicy", env, seed=0, device="cpu", **{**options, **kwargs})


@pytest.mark.parametrize("steps", [2, 7, 64])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
def test_each_step_alone_is_standard_normal(steps, beta):
    torch.manual_seed(0)
    noise = colored_noise(steps, (20_000, 2), beta)
    assert noise.shape == (steps, 20_000, 2)
    assert noise.dtype == torch.float32
    rows = noise.flatten(1)
    # Of 40 000 numbers: standard errors .005 and .007, five of them allowed.
    assert rows.mean(1).abs().max() < 0.025
    assert (rows.var(1) - 1).abs().max() < 0.036


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_power_falls_with_the_frequency(beta):
    """The slope of the power spectrum over frequency, both logarithmic, by sums over sines and cosines."""
    torch.manual_seed(0)
    noise = colored_noise(256, (2_000,), beta).double().numpy()
    cycles = np.arange(1, 128)
    waves = np.exp(-2j * np.pi * np.outer(cycles, np.arange(256)) / 256)
    power = (np.abs(waves @ noise) ** 2).mean(1)
    slope = np.polyfit(np.log(cycles), np.log(power), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.03)


def test_entries_are_independent_of_each_other():
    torch.manual_seed(0)
    first, second = colored_noise(4, (20_000, 2), 1.0).unbind(-1)
    correlation = (first * second).mean(1)
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_a_rollout_is_one_piece_of_noise(monkeypatch):
    """What the agent's actions add to their means is the noise that was drawn, times the standard deviation."""
    agent = _agent(noise_beta=1.0, policy_kwargs={"net_arch": [8], "log_std_init": -1.0})
    drawn = []

    def draw(*arguments):
        drawn.append(colored_noise(*arguments))
        return drawn[-1]

    monkeypatch.setattr("mtrl_imgrad.agents.ppo.agent.colored_noise", draw)
    monkeypatch.setattr(agent, "train", lambda: None)  # the networks stay as they were when acting
    agent.learn(16 * 8)
    buffer = agent.rollout_buffer
    with torch.no_grad():
        means = agent.actor.sample(torch.as_tensor(buffer.observations).flatten(0, 1), deterministic=True)[0]
    noise = (torch.as_tensor(buffer.actions) - means.view(16, 8, 2)) / torch.tensor(-1.0).exp()
    torch.testing.assert_close(noise, drawn[0], atol=1e-4, rtol=1e-4)
    assert agent.policy.noise is None, "what predicts after a rollout draws its own"


def test_a_schedule_goes_by_the_progress(monkeypatch):
    drawn = []

    def draw(steps, shape, beta, device):
        drawn.append(beta)
        return colored_noise(steps, shape, beta, device)

    monkeypatch.setattr("mtrl_imgrad.agents.ppo.agent.colored_noise", draw)
    config = agent_config("mtppo")(noise_beta="lin_1.0").agent_kwargs()
    _agent(noise_beta=config["noise_beta"]).learn(4 * 16 * 8)
    assert drawn == [1.0, 0.75, 0.5, 0.25]


def test_a_seed_determines_the_run():
    runs = [_agent(noise_beta=1.0).learn(256).policy.parameters_to_vector() for _ in range(2)]
    assert np.array_equal(*runs)
    assert not np.array_equal(runs[0], _agent(noise_beta=0.5).learn(256).policy.parameters_to_vector())


@pytest.mark.parametrize(("options", "message"), [
    ({"noise_beta": -0.1}, r"noise_beta must be a finite number in \[0, 2\] or a function, got -0.1"),
    ({"noise_beta": float("nan")}, "noise_beta must be a finite number"),
    ({"noise_beta": LinearSchedule(1, 0, 1), "n_steps": 1, "normalize_advantage": False}, "n_steps must be at least 2"),
    ({"noise_beta": 1.0, "n_steps": 1, "normalize_advantage": False}, "n_steps must be at least 2 for noise_beta=1.0"),
])  # fmt: skip
def test_wrong_values(options, message):
    with pytest.raises(ArgumentError, match=message):
        _agent(**options)
