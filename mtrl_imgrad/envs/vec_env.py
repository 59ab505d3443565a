"""What all back-ends share: K tasks, copies of each, stepped together behind SB3's ``VecEnv`` interface.

A back-end simulates; everything that gives an episode its meaning happens here, once, and so is the same for
all: the horizon, termination on success, the reset within the step that ends an episode, the latched success,
episode statistics, the one-hot, float32, and the refusal of numbers that no training may use.

A back-end implements five methods about *rows* (environment i is row i):

- ``_seed_rows(seed)``: behave from the next reset on as if built with this seed;
- ``_reset_rows(rows)``: start new episodes there, return their first observations ``[len(rows), state]``;
- ``_send(actions)``: begin a step of all rows; ``_recv()``: finish it, return observations, rewards,
  successes;
- ``_close_rows()``: let go of what it holds.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError, NonFiniteError

__all__ = ["MultiTaskVecEnv"]

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class MultiTaskVecEnv(VecEnv):
    """K tasks with ``num_envs_per_task`` environments each, task-major: row i is of task ``i //
    num_envs_per_task``.

    Observations are float32 ``[num_envs, state + K]``, the one-hot of the task last (``[num_envs, state]``
    without ``one_hot``); rewards float32 ``[num_envs]``. An episode ends after ``horizon`` steps by
    truncation, or, with ``terminate_on_success``, at its first success by termination; the row then restarts
    within the same step.

    Every step's ``infos[i]`` holds ``success`` (of this step) and ``TimeLimit.truncated``. At an episode's
    end also ``is_success`` (success at *any* of its steps), ``terminal_observation`` (float32, with the
    one-hot) and ``episode`` (``r`` return, ``l`` length, ``t`` seconds since construction), as SB3 reads
    them.

    Args:
        task_names: K names, each once.
        state_space: Bounds of one row's observation without the one-hot.
        action_space: Bounds of one row's action.
        num_envs_per_task: Copies of each task, with random streams of their own.
        horizon: Steps of an episode.
        seed: Seed of everything random here. ``seed(s)`` followed by ``reset()`` starts anew with another.
        one_hot: Whether observations end with the task's one-hot.
        terminate_on_success: Whether the first success ends the episode.
        render_mode: None or ``"rgb_array"``, for back-ends that can render.
    """

    backend: str = "abstract"
    num_goals: int | None = None
    """Goals per task in a fixed list from which resets draw; None: every reset draws a fresh goal."""

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        state_space: spaces.Box,
        action_space: spaces.Box,
        num_envs_per_task: int = 1,
        horizon: int = 500,
        seed: int = 0,
        one_hot: bool = True,
        terminate_on_success: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.task_names = list(task_names)
        self.num_tasks = len(self.task_names)
        self.num_envs_per_task = num_envs_per_task
        self.task_ids: IntArray = np.repeat(np.arange(self.num_tasks, dtype=np.int64), num_envs_per_task)
        self.horizon = horizon
        self.one_hot = one_hot
        self.terminate_on_success = terminate_on_success
        self.state_size = int(state_space.shape[0])
        self.initial_seed = seed
        self._render_mode = render_mode
        self._pending_seed: int | None = None
        self._used = self._stepping = self._closed = False
        super().__init__(len(self.task_ids), self._observation_space(state_space), action_space)
        self.action_space.seed(seed)
        self._born = time.time()
        self._clear_episodes(np.arange(self.num_envs), allocate=True)

    # What a back-end implements

    @abstractmethod
    def _seed_rows(self, seed: int) -> None:
        """Behave from the next reset on as if built with ``seed``."""

    @abstractmethod
    def _reset_rows(self, rows: IntArray) -> FloatArray:
        """Start new episodes in ``rows``; returns their first observations ``[len(rows), state]``."""

    @abstractmethod
    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        """Begin a step of all rows with ``actions [num_envs, action]``."""

    @abstractmethod
    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Finish the step: observations ``[num_envs, state]``, rewards and successes ``[num_envs]``."""

    def _close_rows(self) -> None:
        """Let go of simulators and processes; called once."""

    def _get_row_attr(self, name: str, rows: list[int]) -> list[Any]:
        """Attribute ``name`` of the given rows; AttributeError where there is none."""
        return [getattr(self, name)] * len(rows)

    def _set_row_attr(self, name: str, value: Any, rows: list[int]) -> None:
        """Set attribute ``name`` of the given rows."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to set {name!r} on")

    def _call_rows(
        self, name: str, rows: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Any]:
        """Call method ``name`` of the given rows' environments."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to call {name!r} on")

    # Episodes

    def reset(self) -> npt.NDArray[np.float32]:  # type: ignore[override]
        """Restart every episode; returns the first observations ``[num_envs, observation]``, float32."""
        self._check_open()
        if self._stepping:
            self._recv()  # SB3's contract: reset cancels a step under way
            self._stepping = False
        if self._pending_seed is not None:
            self._seed_rows(self._pending_seed)
            self.initial_seed, self._pending_seed = self._pending_seed, None
        rows = np.arange(self.num_envs)
        self._clear_episodes(rows)
        states = self._reset_rows(rows)
        self._check_finite(states, rows)
        self._used = True
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self._with_one_hot(states)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Begin a step of all environments.

        Args:
            actions: ``[num_envs, action]``, finite.

        Raises:
            ArgumentError: Wrong shape.
            NonFiniteError: NaN or infinity in an action.
            EnvironmentFaultError: Before ``reset``, after ``close``, or while a step is under way.
        """
        self._check_open()
        if not self._used or self._stepping:
            raise EnvironmentFaultError(
                "step_async called before the previous step's step_wait" if self._stepping
                else "step_async called before reset: no episode is under way"
            )  # fmt: skip
        self._send(self._checked_actions(actions))
        self._stepping = True

    def step_wait(
        self,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], BoolArray, list[dict[str, Any]]]:
        """Finish the step: observations, rewards, dones (terminated or truncated) and infos.

        Raises:
            EnvironmentFaultError: NaN or infinity in an observation or a reward; names task, environment and
                step.
        """
        if not self._stepping:
            raise EnvironmentFaultError("step_wait called without a step_async before it")
        self._stepping = False
        states, rewards, success = self._recv()
        self._lengths += 1
        self._check_finite(states, np.arange(self.num_envs), rewards)
        self._returns += rewards
        self._succeeded |= success
        dones, infos = self._ends(success)
        observations = self._with_one_hot(states)
        if dones.any():
            self._finish(np.flatnonzero(dones), observations, infos)
        return observations, rewards.astype(np.float32), dones, infos

    def _ends(self, success: BoolArray) -> tuple[BoolArray, list[dict[str, Any]]]:
        """Which episodes end with this step, and every row's info."""
        truncated = self._lengths >= self.horizon
        if self.terminate_on_success:
            dones, cut = truncated | success, truncated & ~success
        else:
            dones, cut = truncated, truncated
        pairs = zip(success.tolist(), cut.tolist(), strict=True)
        return dones, [{"success": won, "TimeLimit.truncated": timeout} for won, timeout in pairs]

    def _finish(
        self, rows: IntArray, observations: npt.NDArray[np.float32], infos: list[dict[str, Any]]
    ) -> None:
        """Record the episodes that ended in ``rows`` and restart them, in place in ``observations``."""
        elapsed = round(time.time() - self._born, 6)
        for row, last in zip(rows.tolist(), observations[rows], strict=True):
            statistics = {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": elapsed}
            infos[row].update(
                episode=statistics, is_success=bool(self._succeeded[row]), terminal_observation=last
            )  # fmt: skip
        self._clear_episodes(rows)
        states = self._reset_rows(rows)
        self._check_finite(states, rows)
        observations[rows, : self.state_size] = states

    def _clear_episodes(self, rows: IntArray, allocate: bool = False) -> None:
        if allocate:
            self._returns = np.zeros(self.num_envs)
            self._lengths = np.zeros(self.num_envs, dtype=np.int64)
            self._succeeded = np.zeros(self.num_envs, dtype=bool)
        self._returns[rows], self._lengths[rows], self._succeeded[rows] = 0.0, 0, False

    def _with_one_hot(self, states: FloatArray) -> npt.NDArray[np.float32]:
        """A fresh float32 array: nothing returned is ever overwritten by a later step."""
        observations = np.zeros((self.num_envs, *self.observation_space.shape), dtype=np.float32)  # type: ignore[misc]
        observations[:, : self.state_size] = states
        if self.one_hot:
            observations[np.arange(self.num_envs), self.state_size + self.task_ids] = 1.0
        return observations

    def _observation_space(self, state_space: spaces.Box) -> spaces.Box:
        bits = self.num_tasks if self.one_hot else 0
        low = np.concatenate([state_space.low, np.zeros(bits)]).astype(np.float32)
        high = np.concatenate([state_space.high, np.ones(bits)]).astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    # Checks

    def _check_open(self) -> None:
        if self._closed:
            raise EnvironmentFaultError(
                f"the {self.backend} environment of {self._tasks_in_words()} is closed"
            )

    def _tasks_in_words(self) -> str:
        return ", ".join(self.task_names[:3]) + (
            f" and {self.num_tasks - 3} more" if self.num_tasks > 3 else ""
        )

    def _checked_actions(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        checked = np.asarray(actions, dtype=np.float32)
        expected = (self.num_envs, *self.action_space.shape)  # type: ignore[misc]
        if checked.shape != expected:
            raise ArgumentError(
                f"actions has shape {checked.shape}; {expected} expected, one row an environment"
            )
        if not np.isfinite(checked).all():
            row = int(np.flatnonzero(~np.isfinite(checked).all(axis=1))[0])
            raise NonFiniteError(f"actions holds {checked[row].tolist()} for {self._place(row)}")
        return checked

    def _check_finite(self, states: FloatArray, rows: IntArray, rewards: FloatArray | None = None) -> None:
        """Refuse NaN and infinity; ``rows`` are the environments that ``states`` and ``rewards`` are of."""
        if not np.isfinite(states).all():
            at, column = np.argwhere(~np.isfinite(states))[0].tolist()
            raise EnvironmentFaultError(
                f"observation[{column}] is {states[at, column]} in {self._place(int(rows[at]))}"
            )
        if rewards is not None and not np.isfinite(rewards).all():
            at = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise EnvironmentFaultError(f"the reward is {rewards[at]} in {self._place(int(rows[at]))}")

    def _place(self, row: int) -> str:
        task = self.task_names[self.task_ids[row]]
        return f"task {task!r}, environment {row}, step {int(self._lengths[row])} of its episode"

    # The rest of SB3's interface

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Start anew with ``seed`` at the next reset: then all is as if built with it (goals included).

        SB3's algorithms call this with their own seed when they are constructed. None draws a fresh seed.

        Returns:
            The seed, once for each environment (their own streams are spawned from it).
        """
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed < 0:
            raise ArgumentError(f"seed must be a non-negative integer, not {seed}")
        if self._used or seed != self.initial_seed:
            self._pending_seed = int(seed)
        self.action_space.seed(int(seed))
        return [int(seed)] * self.num_envs

    def close(self) -> None:
        """Let go of the simulators; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close_rows()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of the environments; ``task_name``, ``task_id`` and ``render_mode`` exist for every
        back-end.

        Raises:
            AttributeError: There is no such attribute (SB3's ``has_attr`` relies on it).
        """
        rows = list(self._get_indices(indices))
        own = {
            "task_name": lambda row: self.task_names[self.task_ids[row]],
            "task_id": lambda row: int(self.task_ids[row]),
            "render_mode": lambda row: self._render_mode,
        }
        if attr_name in own:
            return [own[attr_name](row) for row in rows]
        return self._get_row_attr(attr_name, rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments.

        Raises:
            ArgumentError: The back-end has no per-environment objects.
        """
        self._set_row_attr(attr_name, value, list(self._get_indices(indices)))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the environments; returns a result for each.

        Raises:
            ArgumentError: The back-end has no per-environment objects.
        """
        return self._call_rows(method_name, list(self._get_indices(indices)), method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's ``Monitor``, whose episode statistics are made here; False for every other wrapper."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """RGB images of the environments, where they render; None for each otherwise."""
        return [None] * self.num_envs
