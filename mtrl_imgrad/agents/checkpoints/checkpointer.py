"""Checkpoints of agents: saves the parts that an agent lists, and builds the agent again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from stable_baselines3.common.type_aliases import GymEnv

from mtrl_imgrad.agents.checkpoints.construction import build_agent, construction_state
from mtrl_imgrad.agents.checkpoints.generators import (
    global_generators,
    restore_global_generators,
    restore_space,
    space_generator,
)
from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, CheckpointError, MtrlImgradError, TaskMismatchError

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


AgentT = TypeVar("AgentT", bound="MultiTaskAlgorithm")


class Checkpointer:
    """Saves and restores an agent by the parts that its ``_checkpoint_parts`` lists, whatever its class.

    Two parts are special by their names: ``"replay"`` may be left out, ``"episodes"`` may begin anew.
    """

    def __init__(self, agent: MultiTaskAlgorithm) -> None:
        self._agent = agent

    def save(self, folder: Path, replay: bool, eval_env: MultiTaskVecEnv | None) -> None:
        """Write a checkpoint, see `MultiTaskAlgorithm.save_checkpoint`."""
        _check_eval_env(eval_env)
        agent = self._agent
        parts = agent._checkpoint_parts()
        state = {
            **construction_state(agent),
            **{name: None if name == "replay" and not replay else part.get() for name, part in parts.items()},
            "generators": {**global_generators(agent.device), "actions": space_generator(agent.action_space)},
            "evaluation": None if eval_env is None else eval_env.get_state(),
        }
        write_checkpoint(folder, state)

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> list[str]:
        """Restore all parts; a sentence for each that could not be."""
        agent = self._agent
        begins_anew = new_episodes or agent.env is None
        parts = agent._checkpoint_parts()
        remarks = [part.set(state[name]) for name, part in parts.items() if not (name == "episodes" and begins_anew)]
        restore_space(agent.action_space, state["generators"]["actions"])
        restore_global_generators(state["generators"], agent.device)  # last: all of the above may draw
        return [remark for remark in remarks if remark is not None]


def load_agent(
    kind: type[AgentT],
    folder: Path,
    env: GymEnv | None,
    device: torch.device | str,
    new_episodes: bool,
    eval_env: MultiTaskVecEnv | None,
    arguments: Mapping[str, Any],
) -> AgentT:
    """An agent from a checkpoint, see `MultiTaskAlgorithm.load_checkpoint`."""
    _check_eval_env(eval_env)
    state = read_checkpoint(folder)
    if state.get("agent") != kind.__name__:
        raise CheckpointError(f"{folder} is a checkpoint of {str(state.get('agent'))[:80]!r}, not of {kind.__name__}")
    before = global_generators(torch.device("cpu"))
    try:
        state = _from_version_1(state) if "arrays" in state else state
        agent = build_agent(kind, folder, state, env, device, arguments)
        if eval_env is not None and state["evaluation"] is not None and not new_episodes:
            eval_env.set_state(state["evaluation"])
        remarks = Checkpointer(agent).restore(state, new_episodes)
    except (CheckpointError, TaskMismatchError):
        raise
    except MtrlImgradError as error:
        raise CheckpointError(f"{folder} cannot be restored: {error}") from error
    except Exception as error:  # a state that does not fit fails wherever it is first used
        raise CheckpointError(
            f"{folder}: member 'state' does not fit a {kind.__name__}: {type(error).__name__}: {error}"
        ) from error
    if env is None:
        restore_global_generators(before, torch.device("cpu"))  # only predicts: the caller's numbers go on
    for remark in remarks:
        warnings.warn(f"{folder}: {remark}. Learning goes on, but not as if nothing had happened", stacklevel=3)
    return agent


def _from_version_1(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of release 0.1.0 as one of today."""
    own = dict(state["own"])
    return {
        **state,
        "arguments": {"values": state["arguments"]["values"], "unknown": state["arguments"]["lost"]},
        "action_noise": own.pop("action_noise", []),
        "streams": {"device": state["device"], "states": own},
        "replay": {name.removeprefix("replay_"): array for name, array in state["arrays"].items()} or None,
        "normalization": None,
    }


def _check_eval_env(env: object) -> None:
    if env is not None and not isinstance(env, MultiTaskVecEnv):
        raise ArgumentError(f"eval_env must be what make_vec_env returns, or None; got a {type(env).__name__}")
