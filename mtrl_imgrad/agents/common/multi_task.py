"""Base of the multi-task agents beside SB3's: arguments, tasks, checkpoints, logs by task, latest combinations."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from annotated_types import Interval
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from mtrl_imgrad.agents.checkpoints.checkpointer import Checkpointer, load_agent
from mtrl_imgrad.agents.checkpoints.parts import Part, agent_parts, restore_records
from mtrl_imgrad.agents.common.arguments import (
    check_arguments,
    check_combiners,
    check_device,
    check_loaded,
    policy_arguments,
    seed_combiners,
    two_combiners,
)
from mtrl_imgrad.agents.common.environments import check_env, check_normalization, check_spaces
from mtrl_imgrad.agents.common.execution import Compile, begin_execution
from mtrl_imgrad.agents.common.learning import FiniteCheck, as_callbacks
from mtrl_imgrad.agents.common.saving import Saving
from mtrl_imgrad.agents.common.schedules import Scheduled
from mtrl_imgrad.agents.common.sharing import Sharing
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.agents.common.tasks import TaskLayout, check_same_tasks, layout_of
from mtrl_imgrad.agents.common.training_episodes import TrainingEpisodes
from mtrl_imgrad.agents.common.unsupported import Refusal
from mtrl_imgrad.combiners import Combination, Combiner
from mtrl_imgrad.combiners.replicas.ranks import running_ranks
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, MtrlImgradError, NonFiniteError, TaskMismatchError
from mtrl_imgrad.gradients import Execution, Heads, Precision, StepSettings
from mtrl_imgrad.gradients.absent_tasks import NonFiniteCounts, OnNonFinite, check_on_nonfinite
from mtrl_imgrad.seeding import Stream, stream_seed
from mtrl_imgrad.validation import Seed, check

Timesteps = Annotated[float, Interval(ge=0, lt=2**63)]
"""Environment steps; 1e6 will do for a million, as with SB3."""

POLICY_ARGUMENTS = {"observation_space", "action_space", "lr_schedule", "task_names", "one_hot"}
"""Arguments of a policy that the agent sets."""


class CombinedUpdate(Protocol):
    """The report of an update: one combination for each network."""

    @property
    def actor(self) -> Combination | None:
        """Of the actor's gradients; None where the actor was not updated."""

    @property
    def critic(self) -> Combination:
        """Of the critic's gradients."""


class MultiTaskAlgorithm(Sharing, Saving, Scheduled, TrainingEpisodes):
    """Mixed in before one of SB3's algorithms; call `_setup_tasks` first in ``_setup_model``."""

    update_unit: ClassVar[str] = "updates"
    """Unit of SB3's ``train/n_updates``."""

    set_by_agent: ClassVar[dict[str, set[str]]] = {"policy_kwargs": POLICY_ARGUMENTS}
    """By constructor argument that is a dict: the keys that the agent itself adds."""
    fixed_by_save: ClassVar[frozenset[str]] = frozenset({"combiner", "combiner_kwargs"})
    """Arguments of the constructor that ``load`` cannot change."""
    refusals: ClassVar[dict[str, Refusal]]
    """Of SB3's constructor arguments, see `mtrl_imgrad.agents.common.unsupported`."""
    tasks: TaskLayout
    """The tasks and how the environments run them."""
    combiner: str | Combiner | Mapping[str, str | Combiner]
    combiner_kwargs: Mapping[str, Any]
    actor_combiner: Combiner
    critic_combiner: Combiner
    wants_jacobian: bool
    """Set to make the next training compute per-task gradients even where its combiner does without."""
    last_report: CombinedUpdate | None
    heads: Heads
    trace: bool
    compile: Compile
    precision: Precision
    execution: Execution
    """The three arguments above, resolved."""
    batch_size: Any  # as `max_grad_norm` annotated by SB3's algorithms, each in its own way
    max_grad_norm: Any  # a number or None
    on_nonfinite: OnNonFinite
    non_finite: NonFiniteCounts
    """Losses and gradients that `on_nonfinite` left out so far."""
    _unwritten_records: tuple[list[Any], ...] = ()
    """Of a checkpoint, for the logger of the next ``learn``."""

    def __init__(self, arguments: Mapping[str, Any], **fixed: Any) -> None:
        """Check the arguments of an agent's constructor, hand SB3 those that it knows, and keep ours.

        Args:
            arguments: by name: the constructor's ``locals()``.
            fixed: arguments of SB3's algorithm that the agent decides.
        """
        check_arguments(type(self), arguments)
        theirs = inspect.signature(super().__init__).parameters  # of SB3's algorithm, the next class in line
        kwargs = policy_arguments(type(self), arguments["policy"], arguments["policy_kwargs"] or {})
        fixed = {**fixed, "policy_kwargs": kwargs, "supported_action_spaces": (spaces.Box,)}
        super().__init__(**{name: value for name, value in arguments.items() if name in theirs} | fixed)
        self.combiner = arguments["combiner"]
        self.combiner_kwargs = arguments["combiner_kwargs"] or {}
        self.heads = arguments["heads"]
        self.max_grad_norm = arguments["max_grad_norm"]
        self.on_nonfinite = arguments["on_nonfinite"]
        self.trace = arguments["trace"]
        self.compile = arguments["compile"]
        self.precision = arguments["precision"]
        self.actor_combiner, self.critic_combiner = two_combiners(self.combiner, self.combiner_kwargs, self.seed)
        check_on_nonfinite(self.on_nonfinite, self.actor_combiner, self.critic_combiner)
        self.wants_jacobian = False
        self.last_report = None

    def _setup_tasks(self) -> None:
        """Read the tasks off the environment and start their success windows."""
        known = "tasks" in vars(self)  # a loaded agent knows its tasks
        if self.env is None and not known:
            raise ArgumentError("env must be given: the tasks and the networks' sizes come from it")
        if self.env is not None:
            layout = layout_of(self.env)
            check_normalization(type(self).__name__, self.env, layout)
            if known:
                check_same_tasks(self.tasks, layout)
            self.tasks = layout
        self._setup_windows()
        self.non_finite = NonFiniteCounts(self.tasks.names)
        check_combiners(self.actor_combiner, self.critic_combiner, self.tasks.num_tasks, self.policy_kwargs or {})

    def _setup_policy(self, **own: Any) -> None:
        """Make the policy and its networks; ``own`` are arguments that an agent adds to those of all policies."""
        own = {"task_names": self.tasks.names, "one_hot": self.tasks.one_hot, **own}
        self.policy_kwargs = {**self.policy_kwargs, **own}
        policy_class: Any = self.policy_class
        policy = policy_class(self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs)
        self.policy = policy.to(self.device)
        self.actor, self.critic = policy.actor, policy.critic

    def _set_tasks(self, names: Sequence[str], copies: int, one_hot: bool) -> None:
        """Take the tasks of a checkpoint, of which `_setup_tasks` then holds the environment to be."""
        self.tasks = TaskLayout(tuple(names), copies, one_hot)

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's; every environment that an agent is given, also when it is loaded, comes through here."""
        check_env(env)
        if env is None:
            raise ArgumentError("env must be an environment, got None")
        wrapped = super()._wrap_env(maybe_make_env(env, verbose), verbose, monitor_wrapper)
        check_spaces(cls.__name__, wrapped)
        return wrapped

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in SB3; the tasks must be the agent's.

        Raises:
            TaskMismatchError: if they are not, naming the first difference.
        """
        wrapped = self._wrap_env(env, verbose=0)
        layout = layout_of(wrapped)
        check_same_tasks(self.tasks, layout)
        check_normalization(type(self).__name__, wrapped, layout)
        if layout.envs_per_task != self.tasks.envs_per_task:
            raise TaskMismatchError(
                f"env has {layout.envs_per_task} environments a task, the agent's buffer is for "
                f"{self.tasks.envs_per_task}; {type(self).__name__}.load(path, env=env) takes any number"
            )
        super().set_env(wrapped, force_reset)

    @classmethod
    def load(
        cls,
        path: str | Path | BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """As in SB3: what ``save`` wrote, with ``kwargs`` in place of the arguments that it was made with.

        Raises:
            ArgumentError: if the agent has no such argument, its value is wrong or one that the saved parameters were
                learned with, ``device`` is none, or ``save`` did not write the file.
            TaskMismatchError: if ``env`` has other tasks.
        """
        check_device(device)
        check_loaded(cls, kwargs, custom_objects)
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "critic", "last_report", "update", "execution"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "actor.optimizer", "critic.optimizer"], []

    def save_checkpoint(
        self, path: str | os.PathLike[str], replay: bool = True, eval_env: MultiTaskVecEnv | None = None
    ) -> Path:
        """Save all that an exact resume needs: parameters, optimizers, combiners, replay, random states, episodes.

        To be called before or after `learn`, or as `MTCheckpointCallback` does where a rollout begins; within a rollout
        its transitions would be missing. A checkpoint at this path is replaced; whatever happens meanwhile, the path
        holds the old one or the new one.

        Args:
            path: a folder, made if need be.
            replay: whether to save the replay, by far the largest part; without it a resumed run is not exact.
            eval_env: the environment of the run's evaluations, whose episodes to come are saved, too.

        Returns:
            The path.

        Raises:
            CheckpointError: if it cannot be written.
            ArgumentError: if ``eval_env`` is not one of `make_vec_env`.
        """
        Checkpointer(self).save(Path(path), replay, eval_env)
        return Path(path)

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
        for bit what it would have given there; the global random generators are set for that. A warning names what is
        missing for it (the replay, the episodes of a foreign environment).

        Args:
            path: folder of the checkpoint.
            env: an environment like the one that the agent learned in; None is enough to predict.
            device: as in the constructor.
            new_episodes: start new episodes instead of those that were running.
            eval_env: the environment of the evaluations, like the one of `save_checkpoint`; without it, or if none was
                saved, evaluations begin anew.
            arguments: of the constructor, in place of those saved; needed for those that a checkpoint cannot hold, such
                as schedules that are functions.

        Raises:
            CheckpointError: if the checkpoint is missing, damaged, of another kind of agent, or cannot be restored
                (also because ``env`` or an argument does not fit); names the member or the argument.
            TaskMismatchError: if ``env`` has other tasks.
            ArgumentError: if ``eval_env`` is not one of `make_vec_env`.
        """
        return load_agent(cls, Path(path), env, device, new_episodes, eval_env, arguments)

    def _checkpoint_parts(self) -> dict[str, Part]:
        """The parts of a checkpoint by name, in the order in which they are restored; agents add their own."""
        return agent_parts(self)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in SB3.

        Raises:
            ArgumentError: if ``observation`` is no observation, nor several.
            NonFiniteError: if it holds a NaN or an infinity.
        """
        try:
            answer = super().predict(observation, state, episode_start, deterministic)
        except MtrlImgradError:
            raise
        except (AssertionError, TypeError, ValueError) as error:
            expected = f"({self.observation_space.shape[0]},) or (n, {self.observation_space.shape[0]})"  # type: ignore[index]
            raise ArgumentError(f"observation must be an array of shape {expected}: {error}") from error
        # A rollout predicts from `_last_obs`, of which the environment or `FiniteCheck` has looked at each number.
        if observation is not self._last_obs and not (finite := np.isfinite(np.asarray(observation))).all():
            place = tuple(np.argwhere(~finite)[0].tolist())
            raise NonFiniteError(f"observation must be finite, got {np.asarray(observation)[place]} at index {place}")
        return answer

    def _check_learns(self) -> None:
        """Refuse to learn without an environment."""
        if self.env is None:
            raise ArgumentError("env must be given to learn in: set_env(env), or load(path, env=env)")

    def set_random_seed(self, seed: int | None = None) -> None:
        """As in SB3; what is the agent's own is seeded too: updates, batches, combiners without a seed of their own."""
        if seed is not None:
            check("seed", seed, Seed)
        super().set_random_seed(seed)
        if seed is None or "update" not in vars(self):  # the streams of an agent that is being set up are new anyway
            return
        seed_combiners(self.actor_combiner, self.critic_combiner, seed)
        for generator, stream in self._streams().values():
            generator.manual_seed(stream_seed(seed, stream))

    def _streams(self) -> dict[str, tuple[torch.Generator, Stream]]:
        """The agent's own generators by name, combiners' aside, each with the stream that seeds it."""
        raise NotImplementedError

    def _updates_in(self, total_timesteps: int) -> int:
        """Number of updates of a ``learn``; 0 where it is unknown."""
        raise NotImplementedError

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return self.tasks.num_tasks

    @property
    def task_names(self) -> list[str]:
        """The tasks, in the order of the one-hot."""
        return list(self.tasks.names)

    @property
    def last_combinations(self) -> dict[str, Combination]:
        """The combinations of the latest update by ``"actor"`` and ``"critic"``; empty before the first."""
        if self.last_report is None:
            return {}
        sides = {"actor": self.last_report.actor, "critic": self.last_report.critic}
        return {side: combination for side, combination in sides.items() if combination is not None}

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if (count := running_ranks()) > 1:
            raise ArgumentError(
                f"{type(self).__name__} learns in one process, but {count} ranks of torch.distributed run, and their "
                "agents would drift apart: learn before init_process_group, or give each task set or seed a process "
                "of its own without a process group"
            )
        if not isinstance(self.env, MultiTaskVecEnv):  # which checks its own numbers, as they come
            callback = [FiniteCheck(), *as_callbacks(callback)]
        setup = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        restore_records(self)
        begin_execution(self, total_timesteps, anew=self.num_timesteps == 0)
        return setup

    def _step_settings(self) -> StepSettings:
        return StepSettings(self.heads, self.max_grad_norm, self.on_nonfinite)

    def _count_non_finite(self, report: CombinedUpdate, update: int) -> None:
        """Count what was left out of one update."""
        for network, combination in (("critic", report.critic), ("actor", report.actor)):
            if combination is not None:
                self.non_finite.add(combination, f"{network}, update {update}")

    def _record_non_finite(self) -> None:
        """Record the counts, where something can be left out."""
        if self.on_nonfinite == "raise":
            return
        counts = self.non_finite.tasks
        self.logger.record("train/non_finite", sum(counts.values()))
        self.logger.record("train/skipped_steps", self.non_finite.skipped_steps)
        if self.num_tasks > 1:
            record_per_task(self.logger, "train/non_finite", list(counts), counts.values(), on_screen=False)
