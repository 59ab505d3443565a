"""Agents of few parameters on toy-reach."""

import torch

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env

SMALL = {"net_arch": [16, 16]}


def make_agent(env=None, **kwargs):
    kwargs = {"policy_kwargs": SMALL, "learning_starts": 80, "batch_size": 32, "seed": 0, "device": "cpu", **kwargs}
    # Recording changes no number (test_update) and costs most of a short run's time.
    return MTSAC("MlpPolicy", env or make_vec_env("toy-reach", seed=0), **{"trace": False, **kwargs})


def parameters_of(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])
