"""Checks of the environments that an agent is given."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from mtrl_imgrad.agents.common.tasks import TaskLayout
from mtrl_imgrad.envs.registry import list_task_sets, list_tasks
from mtrl_imgrad.errors import ArgumentError, UnsupportedError


def check_env(env: Any) -> None:
    """Refuse what is neither an environment nor the name of one.

    Raises:
        ArgumentError: naming the way to make one.
    """
    if isinstance(env, str):
        _check_name(env)
    elif isinstance(env, gymnasium.vector.VectorEnv):
        raise ArgumentError(
            f"env must be a Gymnasium environment or an SB3 VecEnv, got Gymnasium's {type(env).__name__}, whose "
            "interface is another one; stable_baselines3.common.env_util.make_vec_env makes a VecEnv of copies of an "
            "environment, mtrl_imgrad.make_vec_env one of several tasks"
        )
    elif env is not None and not isinstance(env, (VecEnv, gymnasium.Env)) and not _is_of_old_gym(env):
        raise ArgumentError(f"env must be a Gymnasium environment, an SB3 VecEnv or a name, got {env!r:.80}")


def _check_name(name: str) -> None:
    if name in list_task_sets() or name in list_tasks():
        raise ArgumentError(f"env must be an environment: give env=mtrl_imgrad.make_vec_env({name!r}), got {name!r}")
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ArgumentError(f"env must be an environment or the name of one, got {name!r}: {error}") from error


def _is_of_old_gym(env: Any) -> bool:
    """Whether SB3 may be able to wrap it."""
    return any(base.__module__.split(".")[0] == "gym" for base in type(env).__mro__)


def check_spaces(owner: str, env: VecEnv) -> None:
    """Refuse observations that are no flat vector, and actions that are no bounded Box.

    Raises:
        UnsupportedError: naming the space and the remedy.
    """
    observations, actions = env.observation_space, env.action_space
    if not isinstance(observations, spaces.Box) or len(observations.shape) != 1 or not observations.shape[0]:
        raise UnsupportedError(
            owner,
            f"observation_space={_shown(observations)}",
            "encoders take flat Boxes, of shape (n,), not (0,); gymnasium.wrappers.FlattenObservation makes one",
        )
    if not isinstance(actions, spaces.Box):
        raise UnsupportedError(owner, f"action_space={_shown(actions)}", "actions are continuous, a bounded Box")
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise UnsupportedError(
            owner,
            f"action_space={_shown(actions)}",
            "exploration needs finite bounds: give the environment's Box a finite low and high",
        )
    if not np.issubdtype(actions.dtype, np.floating):
        raise UnsupportedError(
            owner,
            f"action_space={_shown(actions)}",
            f"actions are real numbers, not {actions.dtype}: round them in step",
        )
    if not (actions.low < actions.high).all():  # they are rescaled by the distance, to NaN
        raise UnsupportedError(
            owner, f"action_space={_shown(actions)}", "low must be below high: leave out what the agent cannot choose"
        )


def check_normalization(owner: str, env: VecEnv, tasks: TaskLayout) -> None:
    """Refuse a VecNormalize that would hide from the agent which task an observation is of.

    Raises:
        UnsupportedError: with the remedy.
    """
    normalization = unwrap_vec_normalize(env)
    if normalization is not None and normalization.norm_obs and tasks.one_hot:
        raise UnsupportedError(
            owner,
            "VecNormalize(norm_obs=True) over observations with a one-hot",
            "it rescales the one-hot, by which networks find a task's own parameters; give norm_obs=False, or "
            "normalize the observations in each task's environment",
        )


def parse_train_freq(train_freq: Any, num_envs: int) -> TrainFreq:
    """``train_freq`` as SB3 keeps it: a number of steps, or ``(number, "step" | "episode")``.

    Raises:
        ArgumentError: if it is neither, or counts the episodes of several environments.
    """
    number, unit = train_freq if isinstance(train_freq, (tuple, list)) else (train_freq, "step")
    try:
        parsed = TrainFreq(int(number), TrainFrequencyUnit(unit))
    except ValueError:
        raise ArgumentError(f"train_freq must count 'step' or 'episode', got {unit!r}") from None
    if parsed.frequency < 1:
        raise ArgumentError(f"train_freq must be at least 1, got {number}")
    if parsed.unit == TrainFrequencyUnit.EPISODE and num_envs > 1:
        raise ArgumentError(
            f"train_freq must count steps with several environments, which end their episodes at different times; got "
            f"({number}, 'episode') and {num_envs} environments"
        )
    return parsed


def _shown(space: spaces.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) < 80 else f"{text[:76]}..."
