"""A replay ring a task, sampled task-major.

Differences from SB3's buffer, each with its reason:

* every task has its own rings, so that a batch holds as many rows of each task as of any other;
* a transition is one row of one tensor on the training device: a batch is one gather, without a host copy;
* raw rewards are stored and normalized when sampled, because a stored normalized reward goes stale;
* sampling draws from a generator of its own, so that a seed determines the batches whatever else draws numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import MinLen
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from mtrl_imgrad.agents.common.arguments import check_device
from mtrl_imgrad.agents.common.normalization import Normalization
from mtrl_imgrad.agents.common.unsupported import SAC_ARGUMENTS, refuse
from mtrl_imgrad.agents.off_policy.columns import StoredColumns
from mtrl_imgrad.agents.off_policy.n_step import CUT_OFF, TERMINATED, n_step_transitions
from mtrl_imgrad.agents.off_policy.reward_moments import RewardMoments
from mtrl_imgrad.errors import ArgumentError, NonFiniteError, TaskMismatchError
from mtrl_imgrad.seeding import Stream, stream_seed, torch_generator
from mtrl_imgrad.validation import Count, Probability, Seed, checked

Sampling = Literal["balanced", "uniform"]


class TaskBatch(NamedTuple):
    """Rows of all tasks, task-major."""

    observations: Tensor
    """``[K, B, O]`` float32."""
    next_observations: Tensor
    """``[K, B, O]`` float32; of the terminal observation where an episode ended."""
    actions: Tensor
    """``[K, B, A]`` float32 in [-1, 1]."""
    rewards: Tensor
    """``[K, B]`` float32, normalized if asked for; with n-step returns their discounted sum."""
    terminated: Tensor
    """``[K, B]`` float32: 1 where the episode really ended, 0 where it went on or was cut off by time."""
    weights: Tensor
    """``[K, B]`` float32: a task's loss is the weighted sum of its rows'; 1 / B throughout if balanced."""
    discounts: Tensor | None = None
    """``[K, B]`` float32: of the value of ``next_observations``; None is the agent's discount (``n_steps=1``)."""


@checked
class TaskReplayBuffer(StoredColumns):
    """A ring for each environment, sampled by task.

    Args:
        buffer_size: transitions in all; every environment's ring holds ``buffer_size // n_envs``.
        observation_space: flat Box.
        action_space: flat Box.
        device: where the rows lie and batches arrive.
        n_envs: environments, task-major.
        optimize_memory_usage: SB3's signature; True is not supported.
        handle_timeout_termination: whether values are bootstrapped through a time limit (SB3's default); if not, an
            episode that is cut off counts as one that ended.
        task_names: the K tasks; ``n_envs`` is a multiple of K.
        sampling: ``"balanced"`` draws equally many rows of each task; ``"uniform"`` draws rows over all tasks
            alike, so that the counts vary (the 2021 codes). A uniform batch is padded task-major, and its weights
            make the mean of the K losses the mean over the rows drawn.
        reward_normalization: ``"std"`` divides a task's rewards by the standard deviation of those stored so far
            when they are sampled; None leaves them raw.
        n_steps: transitions that a sampled one spans, fewer where an episode ends and before the newest one.
        gamma: discount of the rewards of these.
        seed: of the sampling generator.
    """

    n_steps: int = 1
    gamma: float = 0.99
    handle_timeout_termination: bool = True

    def __init__(
        self,
        buffer_size: Count,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: Count = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        task_names: Annotated[Sequence[str], MinLen(1)] = ("task",),
        sampling: Sampling = "balanced",
        reward_normalization: Literal["std"] | None = None,
        n_steps: Count = 1,
        gamma: Probability = 0.99,
        seed: Seed | None = None,
    ) -> None:
        refuse(type(self).__name__, {"optimize_memory_usage": optimize_memory_usage}, SAC_ARGUMENTS)
        check_device(device)
        if n_envs % len(task_names):
            raise ArgumentError(f"n_envs must be a multiple of the {len(task_names)} task_names, got {n_envs}")
        if buffer_size < n_envs:
            raise ArgumentError(
                f"buffer_size must hold at least one transition for each of {n_envs} envs, got {buffer_size}"
            )
        # Not ReplayBuffer's own constructor: it allocates the NumPy arrays that the rows replace.
        BaseBuffer.__init__(self, buffer_size // n_envs, observation_space, action_space, device, n_envs)
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps = n_steps
        self.gamma = gamma
        self.task_names = tuple(task_names)
        self.num_tasks = len(self.task_names)
        self.sampling = sampling
        self.reward_normalization = reward_normalization
        self._widths = (self.obs_shape[0], self.obs_shape[0], self.action_dim, 1, 1)
        # A transition is one row: observation, next observation, action, reward, TERMINATED, CUT_OFF or 0.
        self._rows = _make_rows((self.buffer_size, n_envs, sum(self._widths)), self.device)
        self._moments = RewardMoments(self.num_tasks, self.device)
        self.generator = torch_generator(seed, Stream.REPLAY, device=self.device)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition of every environment.

        Args:
            obs: ``[n_envs, O]``.
            next_obs: ``[n_envs, O]``, terminal observations where an episode ended.
            action: ``[n_envs, A]``, or in the shape of the action space.
            reward: ``[n_envs]``, raw.
            done: ``[n_envs]``.
            infos: SB3's infos; ``TimeLimit.truncated`` marks an episode that was cut off, through which values
                are bootstrapped.

        Raises:
            NonFiniteError: if an entry is NaN or infinite, naming the field, the environment and the position.
        """
        if action.shape == (self.n_envs, *(self.action_space.shape or ())):
            action = action.reshape(self.n_envs, -1)
        self._check_shapes(obs=obs, next_obs=next_obs, action=action, reward=reward, done=done)
        if len(infos) != self.n_envs:
            raise ArgumentError(f"infos must be {self.n_envs} dicts, got {len(infos)}")
        ends = np.where(done, TERMINATED, 0.0)
        if self.handle_timeout_termination:
            cut = np.fromiter((info.get("TimeLimit.truncated", False) for info in infos), bool, self.n_envs)
            ends[cut] = CUT_OFF
        row = np.concatenate([obs, next_obs, action, reward[:, None], ends[:, None]], axis=1, dtype=np.float32)
        self._check_finite(row)
        self._rows[self.pos] = torch.from_numpy(row).to(self.device, non_blocking=True)
        # The reward is the last column but one; environments are task-major.
        self._moments.add(self._rows[self.pos, :, -2].view(self.num_tasks, -1))
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def end_episodes(self) -> None:
        """Note that the newest transitions are the last of their episodes, because new ones begin."""
        if self.size() > 0:
            ends = self._rows[self.pos - 1, :, -1]
            ends[ends == 0] = CUT_OFF

    def _check_shapes(self, **fields: np.ndarray) -> None:
        """Refuse what is not of every environment, or of another width than observations and actions have."""
        observation, action = (self.n_envs, *self.obs_shape), (self.n_envs, self.action_dim)
        expected = {"obs": observation, "next_obs": observation, "action": action}
        for name, value in fields.items():
            shape = expected.get(name, (self.n_envs,))
            if value.shape != shape:
                raise ArgumentError(f"{name} must be {list(shape)}, got {list(value.shape)}")

    def _check_finite(self, row: np.ndarray) -> None:
        if np.isfinite(row).all():
            return
        env_index, column = np.argwhere(~np.isfinite(row))[0]
        fields = np.repeat(["observation", "next observation", "action", "reward", "done"], self._widths)
        raise NonFiniteError(
            f"{fields[column]} of env {env_index} (task {self.task_names[env_index * self.num_tasks // self.n_envs]!r})"
            f" is {row[env_index, column]} in the transition for replay position {self.pos}; nothing was stored"
        )

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> TaskBatch:  # type: ignore[override]
        """Draw ``batch_size`` rows over all tasks, with replacement.

        Args:
            batch_size: rows in all; if balanced, a multiple of K.
            env: normalizes observations and rewards, which are stored as the environment gave them.

        Raises:
            ArgumentError: if nothing is stored, ``batch_size`` cannot be shared equally, or rewards would be normalized
                twice.
        """
        if env is not None and env.norm_reward and self.reward_normalization is not None:
            raise ArgumentError("reward_normalization must be None where a VecNormalize does it, got 'std'")
        if self.size() == 0:
            raise ArgumentError("cannot sample: the replay buffer is empty")
        if self.sampling == "balanced":
            per_task, rest = divmod(batch_size, self.num_tasks)
            if rest or per_task == 0:
                raise ArgumentError(f"batch_size must be a multiple of {self.num_tasks} tasks, got {batch_size}")
            weights = torch.full((self.num_tasks, per_task), 1 / per_task, device=self.device)
        else:
            weights = self._uniform_weights(batch_size)
        return self._gather(weights, None if env is None else Normalization(env, self.device))

    def _uniform_weights(self, batch_size: int) -> Tensor:
        """Weights of as many rows of each task as a uniform draw over all tasks would hit.

        The number of rows must not depend on the draw, so each task gets a fixed number of columns, six standard
        deviations above the expected count, and weight 0 beyond the count drawn. (One draw in about a hundred million
        exceeds that and loses the surplus rows.)
        """
        mean = batch_size / self.num_tasks
        columns = batch_size if self.num_tasks == 1 else min(batch_size, int(mean + 6 * mean**0.5) + 1)
        drawn = torch.randint(self.num_tasks, (batch_size,), generator=self.generator, device=self.device)
        counts = torch.zeros(self.num_tasks, device=self.device).index_add_(
            0, drawn, torch.ones(batch_size, device=self.device)
        )
        used = torch.arange(columns, device=self.device) < counts[:, None]
        return used.float() * (self.num_tasks / batch_size)

    def _gather(self, weights: Tensor, normalization: Normalization | None) -> TaskBatch:
        copies = self.n_envs // self.num_tasks
        draw = torch.randint(self.size() * copies, weights.shape, generator=self.generator, device=self.device)
        time, copy = draw // copies, draw % copies
        first = torch.arange(self.num_tasks, device=self.device)[:, None] * copies
        index = time * self.n_envs + first + copy  # of a ring [buffer_size, n_envs] laid out flat
        rows = self._rows.flatten(0, 1)
        obs, next_obs, actions, rewards, ends = (
            rows[index.flatten()].view(*weights.shape, -1).split(self._widths, dim=-1)
        )
        rewards, ends, discounts = rewards.squeeze(-1), ends.squeeze(-1), None
        scaled = self._reward_scale(normalization)
        if self.n_steps == 1:
            rewards = scaled(rewards)
        else:
            spans = n_step_transitions(rows, index, self.n_envs, (self.pos - 1) % self.buffer_size, self.n_steps)
            rewards, discounts = spans.discounted(scaled(spans.rewards), self.gamma)
            next_obs, ends = rows[spans.last][..., self._widths[0] : 2 * self._widths[0]], spans.ends
        if normalization is not None:
            obs, next_obs = normalization.observations(obs), normalization.observations(next_obs)
        # CUT_OFF becomes 0: values are bootstrapped through a time limit.
        return TaskBatch(obs, next_obs, actions, rewards, ends.clamp(min=0), weights, discounts)

    def _reward_scale(self, normalization: Normalization | None) -> Callable[[Tensor], Tensor]:
        """A function that normalizes rewards ``[K, B]`` or ``[K, B, n]``."""
        if normalization is not None:
            return normalization.rewards
        if self.reward_normalization is None:
            return lambda rewards: rewards
        std = self._moments.std()
        return lambda rewards: rewards / std.view(-1, *[1] * (rewards.ndim - 1))

    def reset(self) -> None:
        """Forget everything stored; the generator goes on."""
        super().reset()
        self._moments = RewardMoments(self.num_tasks, self.device)

    def seed(self, seed: int) -> None:
        """Restart the sampling generator."""
        self.generator.manual_seed(stream_seed(seed, Stream.REPLAY))

    def get_state(self) -> dict[str, NDArray]:
        """State for `set_state` of an equal buffer: rows, position, moments of the rewards."""
        moments = torch.stack([self._moments.mean, self._moments.sum_of_squares])
        return {
            "rows": self._rows[: self.size()].cpu().numpy(),
            "position": np.array([self.pos, self.full, self._moments.count], dtype=np.int64),
            "moments": moments.cpu().numpy(),
        }

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Restore `get_state`.

        Raises:
            ArgumentError: if it is of a buffer of another size, or malformed.
        """
        rows, position, moments = (state.get(name, np.zeros(0)) for name in ("rows", "position", "moments"))
        if position.shape != (3,) or position.dtype != np.int64 or moments.shape != (2, self.num_tasks):
            raise ArgumentError("the state of the replay is malformed")
        pos, full, count = position.tolist()
        size = self.buffer_size if full else pos
        shape = (size, *self._rows.shape[1:])
        if not 0 <= pos < self.buffer_size or rows.shape != shape or rows.dtype != np.float32 or count < 0:
            raise ArgumentError(f"the replay has rows {rows.dtype}{list(rows.shape)}, this one takes {list(shape)}")
        self._rows[:size] = torch.from_numpy(rows)
        self.pos, self.full, self._moments.count = pos, bool(full), count
        self._moments.mean[:], self._moments.sum_of_squares[:] = torch.from_numpy(moments)

    def __repr__(self) -> str:
        return (
            f"TaskReplayBuffer({self.size()} of {self.buffer_size} steps of {self.n_envs} envs, "
            f"tasks {list(self.task_names)}, observations {self.obs_shape}, actions {self.action_dim})"
        )

    def check_fits(
        self, task_names: Sequence[str], n_envs: int, observation_space: spaces.Space, action_space: spaces.Space
    ) -> None:
        """Refuse other rows than an agent of these tasks, environments and spaces stores.

        Raises:
            TaskMismatchError: naming both.
        """
        width, actions = int(np.prod(observation_space.shape or ())), int(np.prod(action_space.shape or ()))
        if (self.task_names, self.n_envs, self._widths[1:3]) != (tuple(task_names), n_envs, (width, actions)):
            raise TaskMismatchError(
                f"the replay buffer is {self}, the agent needs one of {n_envs} envs, tasks {list(task_names)}, "
                f"observations ({width},), actions {actions}; it keeps its own"
            )

    def to(self, device: torch.device | str) -> TaskReplayBuffer:
        """Move the rows to another device; on a new kind of device the generator starts anew from its seed."""
        moved_kind = torch.device(device).type != self.device.type
        self.device = torch.device(device)
        self._rows = self._rows.to(device)
        self._moments.to(device)
        if moved_kind:  # the states of CPU and CUDA generators have different formats
            seed = int(self.generator.initial_seed())
            self.generator = torch.Generator(device=device)
            self.generator.manual_seed(seed)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["generator"] = self.generator.get_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.generator = torch.Generator(device=self.device)
        self.generator.set_state(state["generator"].cpu())

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        raise ArgumentError("rows are drawn by task: use sample()")


def _make_rows(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros. On the host they take no memory before they are written, so that a ring costs what it holds.

    Raises:
        ArgumentError: if there is no room for them.
    """
    try:
        if device.type == "cpu":
            return torch.from_numpy(np.zeros(shape, dtype=np.float32))
        return torch.zeros(shape, device=device)
    except (MemoryError, RuntimeError, ValueError) as error:
        size = 4 * math.prod(shape) / 2**30
        raise ArgumentError(f"buffer_size takes {size:.4g} GiB on {device}, which is unavailable: {error}") from error
