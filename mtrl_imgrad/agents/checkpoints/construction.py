"""An agent's constructor arguments, tasks and spaces to a checkpoint, and the agent built from them again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces

from mtrl_imgrad.agents.checkpoints.bounded_build import build_as_saved
from mtrl_imgrad.agents.checkpoints.plain_values import UnknownValueError, from_plain, to_plain
from mtrl_imgrad.errors import CheckpointError, TaskMismatchError

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


AgentT = TypeVar("AgentT", bound="MultiTaskAlgorithm")

NOT_SAVED = {"policy", "env", "device", "tensorboard_log", "_init_setup_model"}
"""Constructor arguments that a checkpoint treats apart or, as a path to write to, takes from nobody."""
RENAMED = {"stats_window_size": "_stats_window_size"}
"""Constructor arguments that SB3 keeps under another name."""


def construction_state(agent: MultiTaskAlgorithm) -> dict[str, Any]:
    """State for `build_agent`: class, arguments, tasks, spaces."""
    return {
        "agent": type(agent).__name__,
        "arguments": _arguments(agent),
        "tasks": {"names": agent.tasks.names, "copies": agent.tasks.envs_per_task, "one_hot": agent.tasks.one_hot},
        "spaces": [_bounds(agent.observation_space), _bounds(agent.action_space)],
    }


def _arguments(agent: MultiTaskAlgorithm) -> dict[str, Any]:
    """The values as they are now, and the names of those that a checkpoint cannot hold."""
    values: dict[str, Any] = {}
    unknown = []
    for name in sorted(set(inspect.signature(type(agent)).parameters) - NOT_SAVED):
        value = getattr(agent, RENAMED.get(name, name))
        if name in agent.set_by_agent:
            value = {key: entry for key, entry in (value or {}).items() if key not in agent.set_by_agent[name]}
        try:
            values[name] = to_plain(value)
        except UnknownValueError:
            unknown.append(name)
    if agent.policy_class is not agent.policy_aliases.get("MlpPolicy"):
        unknown.append("policy")
    return {"values": values, "unknown": unknown}


def _bounds(space: spaces.Space) -> dict[str, np.ndarray]:
    assert isinstance(space, spaces.Box), "the only space that the agents take"
    return {"low": space.low, "high": space.high}


def build_agent(
    kind: type[AgentT],
    folder: Path,
    state: Mapping[str, Any],
    env: GymEnv | None,
    device: torch.device | str,
    arguments: Mapping[str, Any],
) -> AgentT:
    """The agent as it was constructed, before its parts are restored.

    Args:
        kind: its class.
        folder: of the checkpoint, for messages.
        state: `construction_state`, and the agent's parts.
        env: to learn in, or None.
        device: as in the constructor.
        arguments: of the constructor, in place of those saved.

    Raises:
        CheckpointError: if an argument must be given, or one that was saved is unknown.
        TaskMismatchError: if ``env`` has other tasks.
    """
    if missing := sorted(set(state["arguments"]["unknown"]) - set(arguments)):
        names = ", ".join(missing)
        raise CheckpointError(
            f"{folder} cannot hold what {names} was: give it again, load_checkpoint(path, {missing[0]}=...)"
        )
    values = {name: from_plain(value) for name, value in state["arguments"]["values"].items()}
    values = {"policy": "MlpPolicy", **values, **arguments}
    if not set(values) <= (set(inspect.signature(kind).parameters) - NOT_SAVED) | {"policy", *arguments}:
        raise CheckpointError(f"{folder}: member 'state' has arguments that {kind.__name__} does not take")
    agent = kind(**values, env=env, device=device, _init_setup_model=False)
    agent._set_tasks(**state["tasks"])
    observation_space, action_space = (_box(**box) for box in state["spaces"])
    if agent.env is None:
        agent.observation_space, agent.action_space = observation_space, action_space
        agent.n_envs = agent.tasks.num_envs
    else:
        check_for_correct_spaces(agent.env, observation_space, action_space)
        if agent.env.num_envs != agent.tasks.num_envs:
            raise TaskMismatchError(f"env has {agent.env.num_envs} environments, the agent had {agent.tasks.num_envs}")
    policy_class: Any = agent.policy_class
    if not {"policy", "policy_kwargs"} & set(arguments):  # those of the caller may be of any size
        agent.policy_class = partial(build_as_saved, policy_class, state["parameters"]["policy"])  # type: ignore[assignment]
    agent._setup_model()
    agent.policy_class = policy_class
    return agent


def _box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    dtype: Any = np.dtype(low.dtype)
    return spaces.Box(low, high, dtype=dtype)
