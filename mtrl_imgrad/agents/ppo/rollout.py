"""Rollouts of all tasks, and minibatches with as many rows of each task as of any other.

Storage and generalised advantage estimation are SB3's. Different: minibatches are task-major tensors on the training
device, copied there once a rollout, and drawn by a generator of the buffer's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.seeding import Stream, torch_generator


class TaskRollout(NamedTuple):
    """Rows of all tasks, task-major, float32."""

    observations: Tensor
    """``[K, B, O]``"""
    actions: Tensor
    """``[K, B, A]``, as drawn: before they were clipped to the action space."""
    values: Tensor
    """``[K, B]`` predicted when acting, in the unit of the rewards."""
    log_probs: Tensor
    """``[K, B]`` of the actions when acting."""
    advantages: Tensor
    """``[K, B]``"""
    returns: Tensor
    """``[K, B]`` value targets: advantages plus values."""


class TaskRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer for environments that are sorted by task.

    Args:
        buffer_size: steps of each environment.
        observation_space: flat Box.
        action_space: Box.
        device: where minibatches arrive.
        gae_lambda: of the advantages.
        gamma: discount.
        n_envs: environments, task-major.
        task_names: the K tasks; ``n_envs`` is a multiple of K.
        seed: of the generator of the minibatches.

    Raises:
        ArgumentError: if the environments cannot be shared equally among the tasks.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 0.99,
        n_envs: int = 1,
        task_names: Sequence[str] = ("task",),
        seed: int | None = None,
    ) -> None:
        if not task_names or n_envs % len(task_names):
            raise ArgumentError(f"n_envs must be a multiple of the {len(task_names)} task_names, got {n_envs}")
        self.task_names = tuple(task_names)
        self.num_tasks = len(self.task_names)
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)
        self.generator = torch_generator(seed, Stream.MINIBATCHES, device=self.device)

    def add(
        self,
        obs: NDArray,
        action: NDArray,
        reward: NDArray,
        episode_start: NDArray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """As in SB3.

        Raises:
            NonFiniteError: if an entry is NaN or infinite, naming the field, the environment and its task.
        """
        fields = {"observation": obs, "action": action, "reward": reward, "value": value, "log probability": log_prob}
        for name, field in fields.items():
            rows = np.asarray(field.cpu() if isinstance(field, Tensor) else field).reshape(self.n_envs, -1)
            if not np.isfinite(rows).all():
                env = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
                task = self.task_names[env * self.num_tasks // self.n_envs]
                raise NonFiniteError(
                    f"{name} of env {env} (task {task!r}) is NaN or infinite in step {self.pos} of the rollout, from "
                    "which nothing is learned"
                )
        super().add(obs, action, reward, episode_start, value, log_prob)

    def task_major(self, steps: NDArray) -> NDArray:
        """``[T, n_envs, ...]`` in the order of collection to ``[K, T * copies, ...]``."""
        copies = self.n_envs // self.num_tasks
        by_task = steps.reshape(self.buffer_size, self.num_tasks, copies, *steps.shape[2:]).swapaxes(0, 1)
        return by_task.reshape(self.num_tasks, self.buffer_size * copies, *steps.shape[2:])

    def explained_variances(self) -> NDArray:
        """Of each task's value targets by the values predicted when acting, ``[K]``."""
        both = zip(self.task_major(self.values), self.task_major(self.returns), strict=True)
        return np.array([explained_variance(values, returns) for values, returns in both])

    def rollout(self) -> TaskRollout:
        """The whole rollout on the training device, ``[K, T * copies, ...]``.

        Raises:
            ArgumentError: if it is not complete.
        """
        if not self.full:
            raise ArgumentError(f"the rollout has {self.pos} of {self.buffer_size} steps: collect it before training")
        columns = (self.observations, self.actions, self.values, self.log_probs, self.advantages, self.returns)
        return TaskRollout(
            *(torch.as_tensor(self.task_major(column), dtype=torch.float32, device=self.device) for column in columns)
        )

    def minibatches(self, rollout: TaskRollout, rows: int) -> Iterator[TaskRollout]:
        """One epoch: every row once, ``rows`` of each task at a time, in an order drawn anew for each task.

        The last minibatch holds what is left.
        """
        shape = rollout.values.shape
        # A permutation for each task.
        orders = torch.rand(shape, generator=self.generator, device=rollout.values.device).argsort(1)
        for order in orders.split(rows, dim=1):
            yield TaskRollout(*(_select(column, order) for column in rollout))

    def get(self, batch_size: int | None = None) -> Iterator[TaskRollout]:  # type: ignore[override]
        """SB3's call: one epoch of minibatches of ``batch_size`` rows over all tasks, by default all at once."""
        total = self.buffer_size * self.n_envs if batch_size is None else batch_size
        yield from self.minibatches(self.rollout(), max(total // self.num_tasks, 1))


def _select(column: Tensor, order: Tensor) -> Tensor:
    """Rows ``order [K, B]`` of ``column [K, N, ...]``, each task's of its own."""
    tasks = torch.arange(order.shape[0], device=order.device)[:, None]
    return column[tasks, order]
