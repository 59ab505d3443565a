"""Simulators behind a multi-task vector environment, one a file."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.envs.backends", "gymnasium", "stable_baselines3")
