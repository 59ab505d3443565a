"""States of random generators: PyTorch's, NumPy's and Python's global ones, an action space's, and of action noise."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

from mtrl_imgrad.errors import ArgumentError


def global_generators(device: torch.device) -> dict[str, Any]:
    """The states of PyTorch's, NumPy's and Python's generators, and of PyTorch's on a CUDA device."""
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002, the one that SB3 and others draw from
        "python": {"version": version, "numbers": np.array(numbers, dtype=np.int64), "gauss": gauss},
    }


def restore_global_generators(state: dict[str, Any], device: torch.device) -> None:
    """Restore `global_generators`; CUDA's where both have one.

    Raises:
        ArgumentError: if a state is malformed (NumPy would read beyond its end).
    """
    twister = state["numpy"]["state"]
    key = twister["key"]
    if key.shape != (624,) or key.dtype != np.uint32 or not 0 <= twister["pos"] <= 624:
        raise ArgumentError("the state of NumPy's generator is malformed")
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    python = state["python"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))


def space_generator(space: spaces.Space) -> dict[str, Any]:
    """The state of the generator that ``space.sample`` draws from."""
    return dict(space.np_random.bit_generator.state)


def restore_space(space: spaces.Space, state: dict[str, Any]) -> None:
    """Restore `space_generator`."""
    space.np_random.bit_generator.state = state


def noise_state(noise: ActionNoise | None) -> list[np.ndarray | None]:
    """The latest value of each environment's noise (Ornstein-Uhlenbeck), None for noise without memory."""
    noises = noise.noises if isinstance(noise, VectorizedActionNoise) else [] if noise is None else [noise]
    return [np.array(one.noise_prev) if hasattr(one, "noise_prev") else None for one in noises]


def restore_noise(noise: ActionNoise | None, state: list[np.ndarray | None]) -> ActionNoise | None:
    """The noise in the state of `noise_state`, with one copy for each environment if it had that."""
    if noise is None or not state:
        return noise
    if len(state) > 1 and not isinstance(noise, VectorizedActionNoise):
        noise = VectorizedActionNoise(noise, len(state))
    for one, value in zip(noise.noises if isinstance(noise, VectorizedActionNoise) else [noise], state, strict=True):
        if value is not None:
            one.noise_prev = np.array(value)  # type: ignore[attr-defined]
    return noise
