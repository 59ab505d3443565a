"""Checkpoints of agents: all that an exact resume needs, in a format that runs no code when it is loaded."""

from __future__ import annotations

import inspect
import os
import warnings
from abc import abstractmethod
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import check_for_correct_spaces

from mtrl_imgrad.agents.checkpoint import read_checkpoint, write_checkpoint
from mtrl_imgrad.agents.multi_task import MultiTaskAlgorithm
from mtrl_imgrad.agents.randomness import (
    global_generators,
    restore_global_generators,
    restore_space,
    space_generator,
)
from mtrl_imgrad.agents.saved_size import build_as_saved
from mtrl_imgrad.agents.settings import UnknownValueError, from_plain, to_plain
from mtrl_imgrad.agents.stepping import check_optimizer
from mtrl_imgrad.agents.tasks import TaskLayout
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, CheckpointError, MtrlImgradError, TaskMismatchError

__all__ = ["ResumableAlgorithm"]

COUNTERS = ("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_episode_num", "_n_updates")
NOT_KEPT = {"policy", "env", "device", "tensorboard_log", "_init_setup_model"}
"""Constructor arguments that a checkpoint treats apart or, as a path to write to, takes from nobody."""

RENAMED = {"stats_window_size": "_stats_window_size"}
"""Constructor arguments that SB3 keeps under another name."""


class ResumableAlgorithm(MultiTaskAlgorithm):
    """A multi-task algorithm with checkpoints; its agent says what it has beside parameters and counters."""

    _unwritten: tuple[list[Any], ...] = ()
    """Records of a checkpoint that the logger of the next `learn` takes over."""

    # ------------------------------------------------------------------ what an agent says

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """What only this kind of agent has."""

    @abstractmethod
    def _set_own_state(self, state: dict[str, Any]) -> None:
        """Restore `_own_state`."""

    def _replay_arrays(self) -> dict[str, NDArray]:
        """What was collected and is learned from again; none for an agent that forgets it."""
        return {}

    def _set_replay_arrays(self, arrays: dict[str, NDArray], source: Path) -> None:
        """Restore `_replay_arrays`, and say so if something is missing."""

    # ------------------------------------------------------------------ save

    def save_checkpoint(
        self, path: str | os.PathLike[str], replay: bool = True, eval_env: MultiTaskVecEnv | None = None
    ) -> Path:
        """Save all that an exact resume needs: parameters, optimizers, combiners, replay, random states, episodes.

        To be called before or after `learn`, or as `MTCheckpointCallback` does where a rollout begins; within a rollout
        the transition at hand would be lost. A checkpoint at this path is replaced; whatever happens meanwhile, it
        holds the old one or the new one.

        Args:
            path: a folder, made if need be.
            replay: whether the replay is saved, by far the largest part; without it learning can go on, but not as if
                nothing had happened.
            eval_env: the environment of the run's evaluations, so that those to come will see the goals and episodes
                that they would have seen.

        Returns:
            The path.

        Raises:
            CheckpointError: if it cannot be written.
            ArgumentError: if ``eval_env`` is an environment that cannot say where it is.
        """
        folder = Path(path)
        _check_eval_env(eval_env)
        state = {**self._checkpoint_state(), "evaluation": None if eval_env is None else eval_env.get_state()}
        write_checkpoint(folder, state, self._replay_arrays() if replay else {})
        return folder

    def _checkpoint_state(self) -> dict[str, Any]:
        _, variables = self._get_torch_save_params()
        return {
            "agent": type(self).__name__,
            "arguments": self._arguments(),
            "tasks": {"names": self.tasks.names, "copies": self.tasks.envs_per_task, "one_hot": self.tasks.one_hot},
            "spaces": [_box_state(self.observation_space), _box_state(self.action_space)],
            "device": self.device.type,
            "parameters": self.get_parameters(),
            "variables": {name: getattr(self, name) for name in variables},
            "combiners": {"actor": self.actor_combiner.state_dict(), "critic": self.critic_combiner.state_dict()},
            "own": self._own_state(),
            "progress": self._progress(),
            "generators": {**global_generators(self.device), "actions": space_generator(self.action_space)},
            "episodes": self._episodes_state(),
        }

    def _progress(self) -> dict[str, Any]:
        return {
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "remaining": self._current_progress_remaining,
            "wants_jacobian": self.wants_jacobian,
            "episodes": None if self.ep_info_buffer is None else [dict(info) for info in self.ep_info_buffer],
            "successes": None if self.ep_success_buffer is None else [float(won) for won in self.ep_success_buffer],
            "task_successes": {name: list(found) for name, found in self.task_success_buffers.items()},
            "non_finite": self.non_finite.get_state(),
            "records": list(self._unwritten or _records(vars(self).get("_logger"))),
        }

    def _episodes_state(self) -> dict[str, Any] | None:
        """The running episodes, with None for those that the environment cannot restore; None where new ones begin."""
        known = self._last_obs is not None  # after a failure it is not; the environment knows what it would draw next
        state = self.env.get_state(episodes=known) if isinstance(self.env, MultiTaskVecEnv) else None
        if not known:
            return None if state is None else {"environment": state, "last_obs": None, "starts": None}
        return {"environment": state, "last_obs": self._last_obs, "starts": self._last_episode_starts}

    def _arguments(self) -> dict[str, Any]:
        """Of the constructor, as they are now; under ``given`` the names of those that cannot be held."""
        found: dict[str, Any] = {}
        lost = []
        names = set(inspect.signature(type(self)).parameters) - NOT_KEPT
        for name in sorted(names):
            try:
                found[name] = to_plain(self._argument(name))
            except UnknownValueError:
                lost.append(name)
        if self.policy_class is not self.policy_aliases.get("MlpPolicy"):
            lost.append("policy")
        return {"values": found, "lost": lost}

    def _argument(self, name: str) -> Any:
        value = getattr(self, RENAMED.get(name, name))
        if name == "train_freq":
            return (value.frequency, value.unit.value)
        if name in self.set_by_agent:
            return {key: entry for key, entry in (value or {}).items() if key not in self.set_by_agent[name]}
        return value

    # ------------------------------------------------------------------ load

    @classmethod
    def load_checkpoint(
        cls,
        path: str | os.PathLike[str],
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        new_episodes: bool = False,
        eval_env: MultiTaskVecEnv | None = None,
        **arguments: Any,
    ) -> Self:
        """An agent that goes on where `save_checkpoint` was called. Runs no code from the files.

        With an equal ``env`` and on the same kind of device, ``learn(steps, reset_num_timesteps=False)`` then gives bit
        for bit what it would have given there; the global random generators are set for that. Where something is
        missing for it (the replay, the episodes of a foreign environment), a warning says so.

        Args:
            path: folder of the checkpoint.
            env: an environment like the one that the agent learned in; None is enough to predict.
            device: as in the constructor.
            new_episodes: start new episodes, in place of going on in those that were under way.
            eval_env: the environment of the evaluations to come, like the one of `save_checkpoint`; with None, or where
                none was given there, evaluations begin anew.
            arguments: of the constructor, in place of those saved; needed for those that a checkpoint cannot hold, such
                as schedules that are functions.

        Raises:
            CheckpointError: if the checkpoint is missing, damaged, of another kind of agent, or cannot be restored
                (also because ``env`` or an argument does not fit); names the member or the argument.
            TaskMismatchError: if ``env`` has other tasks.
            ArgumentError: if ``eval_env`` is an environment that cannot be put anywhere.
        """
        folder = Path(path)
        _check_eval_env(eval_env)
        state, arrays = read_checkpoint(folder)
        if state.get("agent") != cls.__name__:
            raise CheckpointError(
                f"{folder} is a checkpoint of {str(state.get('agent'))[:80]!r}, not of {cls.__name__}"
            )
        before = global_generators(torch.device("cpu"))
        try:
            agent = cls._from_state(folder, state, env, device, arguments)
            if eval_env is not None and state["evaluation"] is not None and not new_episodes:
                eval_env.set_state(state["evaluation"])
            agent._restore(state, arrays, folder, new_episodes)
        except (CheckpointError, TaskMismatchError, Warning):
            raise
        except MtrlImgradError as error:
            raise CheckpointError(f"{folder} cannot be restored: {error}") from error
        except Exception as error:  # a state that does not fit fails wherever it is first used
            raise CheckpointError(
                f"{folder}: member 'state' does not fit a {cls.__name__}: {type(error).__name__}: {error}"
            ) from error
        if env is None:
            restore_global_generators(before, torch.device("cpu"))
        return agent

    @classmethod
    def _from_state(
        cls,
        folder: Path,
        state: dict[str, Any],
        env: GymEnv | None,
        device: torch.device | str,
        arguments: dict[str, Any],
    ) -> Self:
        """The agent as constructed."""
        lost = sorted(set(state["arguments"]["lost"]) - set(arguments))
        if lost:
            raise CheckpointError(
                f"{folder} cannot hold what {', '.join(lost)} was: give it again, load_checkpoint(path, {lost[0]}=...)"
            )
        values = {name: from_plain(value) for name, value in state["arguments"]["values"].items()}
        values = {"policy": "MlpPolicy", **values, **arguments}
        if not set(values) <= (set(inspect.signature(cls).parameters) - NOT_KEPT) | {"policy", *arguments}:
            raise CheckpointError(f"{folder}: member 'state' has arguments that {cls.__name__} does not take")
        agent = cls(**values, env=env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        observation_space, action_space = (_box(box) for box in state["spaces"])
        tasks = state["tasks"]
        agent.tasks = TaskLayout(tuple(tasks["names"]), tasks["copies"], tasks["one_hot"])
        if env is None:
            agent.observation_space, agent.action_space = observation_space, action_space
            agent.n_envs = agent.tasks.num_envs
        else:
            _check_env(agent, observation_space, action_space)
        policy_class: Any = agent.policy_class
        if not {"policy", "policy_kwargs"} & set(arguments):  # those of the caller are as they want them
            agent.policy_class = partial(build_as_saved, policy_class, state["parameters"]["policy"])  # type: ignore[assignment]
        agent._setup_model()
        agent.policy_class = policy_class
        return agent

    def _restore(self, state: dict[str, Any], arrays: dict[str, NDArray], folder: Path, new_episodes: bool) -> None:
        self.set_parameters(state["parameters"], exact_match=True, device=self.device)
        for name in state["parameters"]:
            if name.endswith("optimizer"):
                check_optimizer(name, recursive_getattr(self, name))
        for name in self._get_torch_save_params()[1]:
            _overwrite(getattr(self, name), state["variables"][name])
        self.actor_combiner.load_state_dict(state["combiners"]["actor"])
        self.critic_combiner.load_state_dict(state["combiners"]["critic"])
        if self.device.type == state["device"]:
            self._set_own_state(state["own"])
        else:
            _warn(folder, f"the random numbers of {state['device']} cannot go on on {self.device.type}")
        self._restore_progress(state["progress"])
        self._set_replay_arrays(arrays, folder)
        restore_space(self.action_space, state["generators"]["actions"])
        if self.env is not None and not new_episodes:
            self._restore_episodes(state["episodes"], folder)
        # Last, because all of the above may draw.
        restore_global_generators(state["generators"], self.device)

    def _restore_progress(self, progress: dict[str, Any]) -> None:
        for name in COUNTERS:
            setattr(self, name, int(progress["counters"][name]))
        self._current_progress_remaining = float(progress["remaining"])
        self.wants_jacobian = bool(progress["wants_jacobian"])
        window = self._stats_window_size
        if progress["episodes"] is not None:
            self.ep_info_buffer = deque((dict(info) for info in progress["episodes"]), maxlen=window)
            self.ep_success_buffer = deque(map(float, progress["successes"]), maxlen=window)
        for name, successes in self.task_success_buffers.items():
            successes.extend(map(float, progress["task_successes"][name]))
        self.non_finite.set_state(progress["non_finite"])
        self._unwritten = tuple(_checked_record(record) for record in progress["records"])

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        found = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        for key, value, count, excluded in self._unwritten:
            self.logger.name_to_value[key] = value
            self.logger.name_to_count[key] = count
            self.logger.name_to_excluded[key] = tuple(excluded)
        self._unwritten = ()
        return found

    def _restore_episodes(self, episodes: dict[str, Any] | None, folder: Path) -> None:
        if episodes is None:
            return
        if episodes["environment"] is None:
            _warn(folder, "the environment's episodes could not be saved; new ones begin")
            return
        if not isinstance(self.env, MultiTaskVecEnv):
            _warn(folder, f"a {type(self.env).__name__} cannot take over the episodes; new ones begin")
            return
        self.env.set_state(episodes["environment"])
        self._last_obs, self._last_episode_starts = episodes["last_obs"], episodes["starts"]


def _warn(folder: Path, what: str) -> None:
    warnings.warn(f"{folder}: {what}. Learning goes on, but not as if nothing had happened", stacklevel=5)


def _records(logger: Logger | None) -> list[list[Any]]:
    """What was recorded and not yet written: key, value, count of the mean, and where it is not to be written.

    Numbers and text; pictures and the like are left out.
    """
    if logger is None:
        return []
    kinds = (bool, int, float, str, np.integer, np.floating)
    return [
        [key, value, logger.name_to_count[key], list(logger.name_to_excluded[key])]
        for key, value in logger.name_to_value.items()
        if isinstance(value, kinds)
    ]


def _checked_record(record: Any) -> list[Any]:
    match record:
        case [str(), bool() | int() | float() | str(), int(), [*places]] if all(isinstance(p, str) for p in places):
            return record
    raise ArgumentError(f"{record!r:.80} is no record of the logs")


def _check_eval_env(env: object) -> None:
    if env is not None and not isinstance(env, MultiTaskVecEnv):
        raise ArgumentError(f"eval_env must be what make_vec_env returns, or None; got a {type(env).__name__}")


def _check_env(agent: ResumableAlgorithm, observation_space: spaces.Box, action_space: spaces.Box) -> None:
    assert agent.env is not None
    check_for_correct_spaces(agent.env, observation_space, action_space)
    if agent.env.num_envs != agent.tasks.num_envs:
        raise TaskMismatchError(f"env has {agent.env.num_envs} environments, the agent had {agent.tasks.num_envs}")


@torch.no_grad()
def _overwrite(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.shape != value.shape:
        raise ArgumentError(f"a tensor of shape {tuple(value.shape)} was saved, {tuple(tensor.shape)} expected")
    tensor.copy_(value)


def _box_state(space: spaces.Space) -> dict[str, Any]:
    assert isinstance(space, spaces.Box), "the only space that the agents take"
    return {"low": space.low, "high": space.high}


def _box(state: dict[str, NDArray]) -> spaces.Box:
    dtype: Any = np.dtype(state["low"].dtype)
    return spaces.Box(state["low"], state["high"], dtype=dtype)
