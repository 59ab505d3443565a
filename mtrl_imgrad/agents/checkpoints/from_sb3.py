"""Reads a Stable-Baselines3 SAC from its zip file without unpickling anything.

SB3's zip holds parameters and optimizers as PyTorch files, read here with ``weights_only``, and settings as JSON, where
whatever is not plain is a pickle. Unpickling runs the author's code, so pickles are never opened: their content follows
from elsewhere (widths from the parameters) or must be given.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.gradients.conditional_step import check_optimizer

if TYPE_CHECKING:
    from mtrl_imgrad.agents.sac.agent import MTSAC


STATES = {
    "policy": "policy.pth",
    "actor": "actor.optimizer.pth",
    "critic": "critic.optimizer.pth",
    "variables": "pytorch_variables.pth",
    "temperature": "ent_coef_optimizer.pth",
}
PICKLED = ":serialized:"
LARGEST_SETTINGS = 2**24
"""Bytes of the JSON."""
COPIED = tuple(
    "learning_rate buffer_size learning_starts batch_size tau gamma train_freq gradient_steps ent_coef target_entropy "
    "target_update_interval".split()
)
"""Settings that are arguments of MTSAC under the same name."""
COUNTERS = ("num_timesteps", "_total_timesteps", "_episode_num", "_n_updates")
ADDED = {"action_noise": None, "n_steps": 1}
"""Settings that files of older versions may lack, with the value that these amount to."""
FIXED = {"use_sde": False, "optimize_memory_usage": False}
"""Settings that MTSAC does not have, with the value that it amounts to."""
POLICY_OPTIONS = {"net_arch", "n_critics", "use_sde", "optimizer_kwargs", "activation_fn"}
"""``policy_kwargs`` that MTSAC's policy has as well."""
ASKED_FOR = {"activation_fn", "optimizer_kwargs"}
"""Of these, what does not follow from the parameters."""
EVERY_STEP = base64.b64encode(pickle.dumps(TrainFreq(1, TrainFrequencyUnit.STEP), pickle.HIGHEST_PROTOCOL)).decode()
"""SB3 always pickles ``train_freq``; its default is known by its bytes."""
HYPERPARAMETERS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
"""Of Adam, in a parameter group."""


@dataclass(frozen=True)
class SB3SAC:
    """The content of the zip file.

    Attributes:
        path: of the file.
        settings: the plain ones.
        pickled: names of those that are pickles, with what SB3 wrote in plain beside each.
        states: of `STATES`.
        hidden: widths of actor (``pi``) and critics (``qf``).
        n_critics: number of critics.
    """

    path: Path
    settings: dict[str, Any]
    pickled: dict[str, dict[str, Any]]
    states: dict[str, Any]
    hidden: dict[str, list[int]]
    n_critics: int

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with which MTSAC is this agent.

        Args:
            given: by the caller, in place of those of the file.

        Raises:
            ArgumentError: if the file has an option that MTSAC lacks, or a pickled one that is not given.
        """
        known = self.settings.keys() | self.pickled.keys()
        names = [*COPIED, *(name for name in ADDED if name in known)]
        copied = {name: self._setting(name) for name in names if name not in given}
        if "stats_window_size" not in given:
            copied["stats_window_size"] = self._setting("_stats_window_size")
        policy_kwargs = self._policy_kwargs(given.get("policy_kwargs") or {})
        return {"combiner": "linear_scalarization", **copied, **given, "policy_kwargs": policy_kwargs}

    def _setting(self, name: str) -> Any:
        if name == "train_freq" and self.pickled.get(name, {}).get(PICKLED) == EVERY_STEP:
            return 1
        if name in self.pickled:
            raise ArgumentError(f"{self.path} has {name} as a pickle, which is not opened: give {name}=...")
        if name not in self.settings:
            raise CheckpointError(f"{self.path} has no {name}")
        return self.settings[name]

    def _policy_kwargs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if fixed := sorted(set(given) - ASKED_FOR):
            raise ArgumentError(f"policy_kwargs can only hold {' and '.join(sorted(ASKED_FOR))} here, got {fixed[0]}")
        is_pickled = "policy_kwargs" in self.pickled
        theirs = (self.pickled if is_pickled else self.settings).get("policy_kwargs", {})
        names = set(theirs) - {PICKLED, ":type:"}
        if unknown := sorted(names - POLICY_OPTIONS):
            raise ArgumentError(f"{self.path} has policy_kwargs that MTSAC does not have: {', '.join(unknown)}")
        if closed := sorted((names & ASKED_FOR if is_pickled else set()) - set(given)):
            raise ArgumentError(
                f"{self.path} has {closed[0]} as a pickle, which is not opened: give "
                f"policy_kwargs=dict({closed[0]}=...)"
            )
        options = {} if is_pickled else {key: theirs[key] for key in names & {"optimizer_kwargs"}}
        return {**options, "n_critics": self.n_critics, **given, "net_arch": self.hidden, "encoder": "one_hot"}

    def check_env(self, observation_space: spaces.Space, action_space: spaces.Space, num_tasks: int) -> None:
        """Refuse an environment that the agent was not made for.

        Raises:
            TaskMismatchError: if it has several tasks, other widths, or other bounds of actions.
        """
        if num_tasks != 1:
            raise TaskMismatchError(f"env has {num_tasks} tasks, the agent in {self.path} has one")
        policy = self.states["policy"]
        inputs = policy["actor.latent_pi.0.weight"].shape[1]
        if observation_space.shape != (inputs,):
            raise TaskMismatchError(
                f"env has observations of shape {observation_space.shape}, the agent in {self.path} takes ({inputs},)"
                ": with or without the one-hot?"
            )
        if action_space.shape != (len(policy["actor.mu.bias"]),):
            raise TaskMismatchError(
                f"env has actions of shape {action_space.shape}, the agent in {self.path} acts by "
                f"({len(policy['actor.mu.bias'])},)"
            )
        theirs = self.pickled.get("action_space", {})
        for side in ("low", "high"):
            ours = str(getattr(action_space, side))
            if side in theirs and theirs[side] != ours:
                raise TaskMismatchError(f"env's actions have {side}={ours}, the agent's in {self.path} {theirs[side]}")

    def networks(self) -> dict[str, list[Tensor]]:
        """The parameters in MTSAC's order, by network; its actor has mean and deviation in one layer."""
        policy = self.states["policy"]
        depth = len(self.hidden["pi"])
        actor = [policy[name] for name in _actor_names(depth)]
        networks = {"actor": _one_head(actor)}
        for network in ("critic", "critic_target"):
            networks[network] = [
                policy[name] for name in _critic_names(network, self.n_critics, len(self.hidden["qf"]))
            ]
        return networks

    @torch.no_grad()
    def copy_to(self, agent: MTSAC) -> None:
        """Copy networks, optimizers, temperature and counters to an agent that was made with `arguments`."""
        for name, values in self.networks().items():
            for parameter, value in zip(getattr(agent, name).parameters(), values, strict=True):
                parameter.copy_(value)
        optimizers: dict[str, Any] = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
        if agent.log_ent_coef is not None and "temperature" in self.states:
            agent.log_ent_coef.copy_(self.states["variables"]["log_ent_coef"])
            optimizers["temperature"] = agent.ent_coef_optimizer
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(self.optimizer(name, optimizer.state_dict()))
            check_optimizer(name, optimizer)
        for name in COUNTERS:
            setattr(agent, name, int(self.settings[name]))

    def optimizer(self, name: str, ours: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state in MTSAC's order.

        Args:
            name: of `STATES`.
            ours: the state of MTSAC's optimizer.
        """
        theirs = self.states[name]
        moments = [theirs["state"][i] for i in sorted(theirs["state"])]
        if name == "actor" and moments:
            keys = moments[0].keys() - {"step"}
            merged = {key: _one_head([one[key] for one in moments]) for key in keys}
            steps = [one["step"] for one in moments][:-2]
            moments = [{"step": step, **{key: merged[key][i] for key in keys}} for i, step in enumerate(steps)]
        group = {key: theirs["param_groups"][0][key] for key in HYPERPARAMETERS}
        return {"state": dict(enumerate(moments)), "param_groups": [{**ours["param_groups"][0], **group}]}


def read_sb3_sac(path: str | os.PathLike[str]) -> SB3SAC:
    """Read the zip file of an SB3 SAC. Runs no code from it.

    Raises:
        CheckpointError: if it is not such a file, naming the member.
        ArgumentError: if it explores in a way that MTSAC lacks, or its networks are not those of ``MlpPolicy`` on flat
            observations, naming what is different.
    """
    file = Path(path)
    if not file.exists() and file.with_name(f"{file.name}.zip").exists():
        file = file.with_name(f"{file.name}.zip")  # as SB3 finds it
    try:
        with zipfile.ZipFile(file) as archive:
            data = json.loads(_member(archive, "data", file, LARGEST_SETTINGS))
            names = archive.namelist()
            states = {key: _tensors(archive, name, file) for key, name in STATES.items() if name in names}
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not the zip file of an SB3 agent: {error}") from error
    if not isinstance(data, dict) or not {"policy", "actor", "critic"} <= set(states):
        raise CheckpointError(f"{file} is not the zip file of an SB3 SAC: it has no parameters of one")
    pickled = {name: entry for name, entry in data.items() if isinstance(entry, dict) and PICKLED in entry}
    settings = {name: entry for name, entry in data.items() if name not in pickled}
    for name, expected in FIXED.items():
        if name in pickled or settings.get(name, expected) != expected:
            raise ArgumentError(f"{file} has {name} other than {expected!r}, which MTSAC does not have")
    return SB3SAC(file, settings, pickled, states, *_architecture(states["policy"], file))


def _member(archive: zipfile.ZipFile, name: str, path: Path, largest: int | None = None) -> bytes:
    try:
        about = archive.getinfo(name)
    except KeyError:
        raise CheckpointError(f"{path} has no member {name!r}") from None
    if about.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(f"{path}: member {name!r} is compressed, which SB3 does not do")
    if largest is not None and about.file_size > largest:
        raise CheckpointError(f"{path}: member {name!r} has {about.file_size} bytes; at most {largest} are read")
    return archive.read(name)


def _tensors(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    try:
        return torch.load(io.BytesIO(_member(archive, name, path)), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: member {name!r} holds something other than tensors: {error}") from error


def _architecture(policy: Any, path: Path) -> tuple[dict[str, list[int]], int]:
    """Hidden widths of actor and critics, and the number of critics.

    Raises:
        ArgumentError: if there are other parameters than those of such networks.
    """
    if not isinstance(policy, Mapping) or not all(isinstance(value, Tensor) for value in policy.values()):
        raise CheckpointError(f"{path}: member 'policy.pth' is not the state of a policy")
    actor = _linear_layers("actor.latent_pi", policy)
    critic = _linear_layers("critic.qf0", policy)[:-1]
    n_critics = len({match[1] for name in policy if (match := re.match(r"critic\.qf(\d+)\.", name))})
    expected = {*_actor_names(len(actor))}
    for network in ("critic", "critic_target"):
        expected |= set(_critic_names(network, n_critics, len(critic)))
    if different := sorted(expected ^ set(policy)):
        raise ArgumentError(
            f"{path} has not the networks of SAC's MlpPolicy on flat observations, which are all that can be taken "
            f"over: {', '.join(different[:5])}"
        )
    return {"pi": actor, "qf": critic}, n_critics


def _linear_layers(prefix: str, policy: Mapping[str, Tensor]) -> list[int]:
    """Widths of the layers ``prefix.0``, ``prefix.2`` ...: an activation stands between two."""
    widths: list[int] = []
    while (name := f"{prefix}.{2 * len(widths)}.weight") in policy:
        widths.append(policy[name].shape[0])
    return widths


def _actor_names(depth: int) -> list[str]:
    layers = [*(f"latent_pi.{2 * i}" for i in range(depth)), "mu", "log_std"]
    return [f"actor.{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def _critic_names(network: str, n_critics: int, depth: int) -> list[str]:
    layers = (f"qf{critic}.{2 * i}" for critic in range(n_critics) for i in range(depth + 1))
    return [f"{network}.{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def _one_head(actor: list[Tensor]) -> list[Tensor]:
    """The last two layers (weight, bias, weight, bias) as one."""
    weight, bias, other_weight, other_bias = actor[-4:]
    return [*actor[:-4], torch.cat([weight, other_weight]), torch.cat([bias, other_bias])]
