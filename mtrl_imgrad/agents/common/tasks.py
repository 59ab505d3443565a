"""Which environment runs which task: read off a VecEnv once, checked, and compared between agent and environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError


@dataclass(frozen=True)
class TaskLayout:
    """The tasks of a vector environment.

    Attributes:
        names: K task names, in the order of the one-hot.
        envs_per_task: environments that run each task; environment i runs task ``i // envs_per_task``.
        one_hot: whether the last K numbers of an observation are the task.
    """

    names: tuple[str, ...]
    envs_per_task: int
    one_hot: bool

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.names)

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return self.num_tasks * self.envs_per_task

    def task_of(self, env_index: int) -> str:
        """Name of the task that an environment runs."""
        return self.names[env_index // self.envs_per_task]


def layout_of(env: VecEnv) -> TaskLayout:
    """Read the task layout of an environment.

    An environment of `mtrl_imgrad.envs.make_vec_env` says itself which tasks it runs. Any other VecEnv is taken as
    one task, of which every sub-environment is a copy.

    Raises:
        ArgumentError: if the environment's task ids are not task-major with equally many copies a task.
    """
    names: Sequence[str] | None = _attribute(env, "task_names")
    if names is None:
        return TaskLayout(("task",), env.num_envs, one_hot=False)
    ids = np.asarray(_attribute(env, "task_ids"))
    copies, rest = divmod(env.num_envs, len(names))
    if rest or not np.array_equal(ids, np.repeat(np.arange(len(names)), copies)):
        raise ArgumentError(
            f"env.task_ids must be task-major with equally many copies of each of the {len(names)} tasks "
            f"(0, 0, ..., 1, 1, ...), got {ids.tolist()} for {env.num_envs} environments"
        )
    return TaskLayout(tuple(names), copies, one_hot=bool(_attribute(env, "one_hot")))


def check_same_tasks(agent: TaskLayout, env: TaskLayout) -> None:
    """Refuse an environment whose tasks are not the agent's.

    Raises:
        TaskMismatchError: naming the first difference.
    """
    if agent.num_tasks != env.num_tasks:
        raise TaskMismatchError(
            f"env has {env.num_tasks} tasks, but the agent was made for {agent.num_tasks}: {', '.join(agent.names)}"
        )
    for position, (ours, theirs) in enumerate(zip(agent.names, env.names, strict=True)):
        if ours != theirs:
            raise TaskMismatchError(f"env's task {position} is {theirs!r}, but the agent's is {ours!r}")
    if agent.one_hot != env.one_hot:
        raise TaskMismatchError(f"env has one_hot={env.one_hot}, but the agent was made with one_hot={agent.one_hot}")


def _attribute(env: Any, name: str) -> Any:
    """An attribute of a VecEnv or of one that it wraps; None where none has it."""
    while env is not None:
        if name in vars(env) or hasattr(type(env), name):
            return getattr(env, name)
        env = vars(env).get("venv")
    return None
