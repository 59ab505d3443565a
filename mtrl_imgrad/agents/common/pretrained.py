"""Trained agents that are shipped with the library, in the format of checkpoints: JSON and safetensors, no pickle.

A file holds what acting needs and learning can start from: the constructor's arguments, tasks, spaces and the policy's
parameters; no optimizer, replay or random state. ``tools/make_pretrained.py`` makes it of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from stable_baselines3.common.type_aliases import GymEnv

from mtrl_imgrad.agents.checkpoints.construction import build_agent, construction_state
from mtrl_imgrad.agents.checkpoints.generators import global_generators, restore_global_generators
from mtrl_imgrad.checkpoints.format import is_checkpoint, read_checkpoint, write_checkpoint
from mtrl_imgrad.errors import ArgumentError, CheckpointError, MtrlImgradError, TaskMismatchError, UnknownNameError
from mtrl_imgrad.validation import checked

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


FOLDER = Path(__file__).parents[2] / "pretrained"
"""A folder for each agent; none where none is shipped."""
AgentT = TypeVar("AgentT", bound="MultiTaskAlgorithm")


def list_pretrained() -> list[str]:
    """Names of the trained agents that are shipped."""
    return sorted(entry.name for entry in FOLDER.iterdir() if is_checkpoint(entry)) if FOLDER.is_dir() else []


@checked
def pretrained_card(name: str) -> dict[str, Any]:
    """Where a trained agent comes from: its class, tasks, steps, the run's configuration and what was measured.

    Raises:
        UnknownNameError: if none of that name is shipped.
    """
    state = read_checkpoint(_folder_of(name))
    tasks = list(state["tasks"]["names"])
    return {"agent": state["agent"], "tasks": tasks, "timesteps": state["timesteps"], **state["card"]}


def save_pretrained(agent: MultiTaskAlgorithm, folder: Path, card: dict[str, Any]) -> Path:
    """Write an agent and its card to a folder.

    Raises:
        ArgumentError: if an argument of the agent cannot be written as plain data.
        CheckpointError: if the folder cannot be written.
    """
    state = construction_state(agent)
    if unknown := state["arguments"]["unknown"]:
        raise ArgumentError(f"agent has arguments that are not plain data: {', '.join(unknown)}")
    parameters = {"policy": agent.get_parameters()["policy"]}
    write_checkpoint(folder, {**state, "parameters": parameters, "timesteps": agent.num_timesteps, "card": card})
    return folder


def load_pretrained(kind: type[AgentT], name: str, env: GymEnv | None, device: torch.device | str) -> AgentT:
    """See `MultiTaskAlgorithm.from_pretrained`."""
    folder = _folder_of(name)
    state = read_checkpoint(folder)
    if state.get("agent") != kind.__name__:
        raise ArgumentError(f"pretrained agent {name!r} is of {state.get('agent')}, not of {kind.__name__}")
    before = global_generators(torch.device("cpu"))
    try:
        agent = build_agent(kind, folder, state, env, device, {})
        agent.policy.load_state_dict(state["parameters"]["policy"])
        agent.num_timesteps = int(state["timesteps"])
    except (CheckpointError, TaskMismatchError):
        raise
    except MtrlImgradError as error:
        raise CheckpointError(f"{folder} cannot be restored: {error}") from error
    except ValueError as error:  # SB3's, of spaces
        raise TaskMismatchError(f"env does not fit the pretrained agent {name!r}: {error}") from error
    finally:
        restore_global_generators(before, torch.device("cpu"))
    return agent


def _folder_of(name: str) -> Path:
    if name not in list_pretrained():
        raise UnknownNameError("pretrained agent", name, list_pretrained())
    return FOLDER / name
