"""Building the environments of one's own tasks, and the spaces that they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from mtrl_imgrad.errors import ArgumentError

MakeEnv = str | Callable[[], gym.Env]
"""A Gymnasium id, or a function that builds an environment."""


def check_names(tasks: Mapping[str, MakeEnv]) -> list[str]:
    """The names of the tasks.

    Raises:
        ArgumentError: if there are none, or one is no name, or stands for no way to build an environment.
    """
    if not tasks:
        raise ArgumentError("tasks is empty: name at least one task")
    for name, make in tasks.items():
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"tasks must have names as keys, got {name!r}")
        if not isinstance(make, str) and not callable(make):
            hint = "; write lambda: ... around what builds it" if isinstance(make, gym.Env) else ""
            raise ArgumentError(
                f"tasks[{name!r}] must be a Gymnasium id or a function that builds an environment, got {make!r}{hint}"
            )
    return list(tasks)


def build_env(name: str, make: MakeEnv) -> gym.Env:
    """An environment of a task.

    Raises:
        ArgumentError: if building it raised, or something else came out.
    """
    try:
        env = gym.make(make) if isinstance(make, str) else make()
    except Exception as error:
        raise ArgumentError(f"tasks[{name!r}] cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(env, gym.Env):
        raise ArgumentError(f"tasks[{name!r}] must build a gymnasium.Env, got {_description(env)}")
    return env


def _description(value: Any) -> str:
    if value is None:
        return "None: does the function return what it builds?"
    if isinstance(value, type):
        return f"the class {value.__name__}: call it"
    if isinstance(value, (VecEnv, gym.vector.VectorEnv)):
        return f"{type(value).__name__}, a vector of environments: build one, num_envs_per_task makes copies"
    if callable(getattr(value, "step", None)):
        return f"{type(value).__name__} (of {type(value).__module__}), which has another interface"
    return type(value).__name__


def observation_width(name: str, env: gym.Env) -> int:
    """Numbers of an observation.

    Raises:
        ArgumentError: if the space is no flat Box with bounds.
    """
    space = getattr(env, "observation_space", None)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise ArgumentError(f"tasks[{name!r}] must have a flat Box of observations (FlattenObservation), got {space}")
    if np.isnan(space.low).any() or np.isnan(space.high).any():
        raise ArgumentError(f"tasks[{name!r}] must have bounds of observations that are not NaN, got {space}")
    return int(space.shape[0])


def common_observations(given: list[spaces.Space]) -> spaces.Box:
    """Bounds that hold for all tasks; zeros at the end of shorter observations lie within them."""
    boxes = [box for box in given if isinstance(box, spaces.Box)]
    width = max(box.shape[0] for box in boxes)
    low, high = np.zeros((2, len(boxes), width))
    for row, box in enumerate(boxes):
        low[row, : box.shape[0]], high[row, : box.shape[0]] = box.low, box.high
    return spaces.Box(low.min(0).astype(np.float32), high.max(0).astype(np.float32), dtype=np.float32)


def common_actions(envs: Mapping[str, gym.Env]) -> spaces.Box:
    """The space of actions that all have, in float32 and within the bounds.

    Raises:
        ArgumentError: if one is no flat Box of floats, has a number without room, or differs; names the task.
    """
    (first, env), *others = envs.items()
    space = _action_box(first, env)
    for name, other in others:
        if _action_box(name, other) != space:
            raise ArgumentError(
                f"tasks[{name!r}] has the actions {other.action_space}, tasks[{first!r}] has {space}: all tasks must "
                "have the same (gymnasium.wrappers.RescaleAction brings bounds together)"
            )
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)  # float64 bounds: rounded inwards
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    return spaces.Box(low, high, dtype=np.float32)


def _action_box(name: str, env: gym.Env) -> spaces.Box:
    space = getattr(env, "action_space", None)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise ArgumentError(f"tasks[{name!r}] must have a flat Box of actions, got {space}")
    if not np.issubdtype(space.dtype, np.floating):
        raise ArgumentError(f"tasks[{name!r}] must have actions of floats, got {space}: agents act continuously")
    if not (space.low < space.high).all():  # NaN included
        at = int(np.flatnonzero(~(space.low < space.high))[0])
        raise ArgumentError(
            f"tasks[{name!r}] must have room for every number of an action, got "
            f"[{space.low[at]}, {space.high[at]}] for number {at}"
        )
    return space


def common_horizon(envs: Mapping[str, gym.Env]) -> int:
    """The largest ``max_episode_steps`` of all.

    Raises:
        ArgumentError: if an environment is registered without; names the task.
    """
    limits = {name: None if env.spec is None else env.spec.max_episode_steps for name, env in envs.items()}
    unknown = [name for name, steps in limits.items() if steps is None]
    if unknown:
        raise ArgumentError(f"horizon must be given: tasks[{unknown[0]!r}] has no max_episode_steps")
    return max(steps for steps in limits.values() if steps is not None)
