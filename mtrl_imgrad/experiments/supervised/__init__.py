"""Supervised runs: configuration, training, comparison, analysis."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.experiments.supervised", "mujoco", "PIL", "scipy", "safetensors", "matplotlib")
