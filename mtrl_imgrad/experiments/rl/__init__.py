"""Runs of agents: configuration, training, evaluation."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.experiments.rl", "gymnasium", "stable_baselines3", "tensorboard", "metaworld")
