"""Base of all back-ends: K tasks, copies of each, stepped together behind SB3's ``VecEnv`` interface.

A back-end simulates; everything that gives an episode its meaning happens here, once, and so is the same for
all: the horizon, termination on success, the reset within the step that ends an episode, the latched success,
episode statistics, the one-hot, float32, and the refusal of numbers that no training may use.

A back-end implements five methods about *rows* (environment i is row i):

- ``_seed_rows(seed)``: behave from the next reset on as if built with this seed;
- ``_reset_rows(rows)``: start new episodes there, return their first observations ``[len(rows), state]``;
- ``_send(actions)``: begin a step of all rows; ``_recv()``: finish it, return observations, rewards,
  successes;
- ``_close_rows()``: let go of what it holds.

A back-end whose simulator ends episodes by itself says so by ``_endings()``.

A back-end that can repeat its resets implements two more, and its episodes can then be saved and restored:

- ``_get_streams()``: what the last reset of each row drew from;
- ``_set_streams(streams)``: have the next reset of each row draw that again.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("MultiTaskVecEnv", "gymnasium", "stable_baselines3")

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl_imgrad.envs.episodes import BoolArray, Episodes, FloatArray, IntArray
from mtrl_imgrad.envs.restoring import RestorableEpisodes, to_float32
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError, NonFiniteError
from mtrl_imgrad.seeding import fresh_seed
from mtrl_imgrad.validation import Seed, check


class MultiTaskVecEnv(RestorableEpisodes):
    """K tasks with n environments each, task-major: row i is of task ``i // n``.

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
        self._used = self._running = self._stepping = self._closed = False
        self._last_observations = None  # from which rows that failed are brought back; None: they need not be
        super().__init__(len(self.task_ids), self._observation_space(state_space), action_space)
        self.action_space.seed(seed)
        self._episodes = Episodes(self.num_envs, horizon, terminate_on_success)
        self._all_rows = np.arange(self.num_envs)
        self._make_action_log()

    # What a back-end may implement; what it must, `RestorableEpisodes` declares

    def _endings(self) -> tuple[BoolArray, BoolArray]:
        """Which episodes the simulator itself terminated and truncated in the last step, ``[num_envs]`` each."""
        none = np.zeros(self.num_envs, dtype=bool)
        return none, none

    def _close_rows(self) -> None:
        """Let go of simulators and processes; called once."""

    # Episodes

    def reset(self) -> npt.NDArray[np.float32]:
        """Restart every episode; returns the first observations ``[num_envs, observation]``, float32."""
        self._check_open()
        if self._stepping:
            self._recv()  # SB3's contract: reset cancels a step under way
        self._running = self._stepping = False
        if self._pending_seed is not None:
            self._seed_rows(self._pending_seed)
            self.initial_seed, self._pending_seed = self._pending_seed, None
        self._used = True
        self._last_observations = None
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        observations = self._with_one_hot(self._start(self._all_rows))
        self._running = True
        self._last_observations = observations.copy()
        return observations

    def _start(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Start episodes in ``rows``; their first states ``[len(rows), state]``."""
        states = to_float32(self._reset_rows(rows))
        self._episodes.start(rows)
        self._check_finite(states, rows)
        return states

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Begin a step of all environments.

        Args:
            actions: ``[num_envs, action]``, finite.

        Raises:
            ArgumentError: Wrong shape.
            NonFiniteError: NaN or infinity in an action.
            EnvironmentFaultError: Before ``reset``, after ``close``, while a step is under way, or after one
                that ended in an error or an interrupt.
        """
        self._check_open()
        if self._stepping:
            raise EnvironmentFaultError("step_async called before the previous step's step_wait")
        if not self._running:
            raise EnvironmentFaultError("no episode is under way: call reset first (also after a step that failed)")
        checked = self._checked_actions(actions)
        self._running = False  # until all rows have their actions: some may, if this is interrupted
        self._send(checked)
        self._log_actions(checked)
        self._running = self._stepping = True

    def step_wait(
        self,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], BoolArray, list[dict[str, Any]]]:
        """Finish the step: observations, rewards, dones (terminated or truncated) and infos.

        Raises:
            EnvironmentFaultError: NaN or infinity in an observation or a reward; names task, environment and
                step. Go on with ``reset``.
            WorkerError: A worker process raised, died or hung.
        """
        if not self._stepping:
            raise EnvironmentFaultError("step_wait called without a step_async before it")
        self._running = self._stepping = False  # until the step is whole: after an error only `reset` goes on
        raw_states, raw_rewards, success = self._recv()
        states, rewards = to_float32(raw_states), to_float32(raw_rewards)
        self._episodes.lengths += 1
        self._check_finite(states, self._all_rows, rewards)
        dones, infos = self._episodes.advance(raw_rewards, success, *self._endings())
        observations = self._with_one_hot(states)
        self._last_observations = observations.copy()
        if dones.any():
            ended = np.flatnonzero(dones)
            self._episodes.finish(ended, observations[ended], infos)
            observations[ended, : self.state_size] = self._start(ended)  # SB3: the next episode's first observation
            self._last_observations = observations.copy()
        self._running = True
        return observations, rewards, dones, infos

    def _with_one_hot(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A fresh float32 array: nothing returned is ever overwritten by a later step."""
        width = self.state_size + (self.num_tasks if self.one_hot else 0)
        observations = np.zeros((self.num_envs, width), dtype=np.float32)
        observations[:, : self.state_size] = states
        if self.one_hot:
            observations[self._all_rows, self.state_size + self.task_ids] = 1.0
        return observations

    def _observation_space(self, state_space: spaces.Box) -> spaces.Box:
        bits = self.num_tasks if self.one_hot else 0
        low = np.concatenate([state_space.low, np.zeros(bits)]).astype(np.float32)
        high = np.concatenate([state_space.high, np.ones(bits)]).astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    # Checks

    def _check_open(self) -> None:
        if self._closed:
            names = ", ".join(self.task_names[:3]) + (", ..." if self.num_tasks > 3 else "")
            raise EnvironmentFaultError(f"the {self.backend} environment of {names} is closed")

    def _checked_actions(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            checked = np.asarray(actions, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"actions must be numbers [num_envs, action]: {error}") from None
        expected = (self.num_envs, *self.action_space.shape)  # type: ignore[misc]
        if checked.shape != expected:
            raise ArgumentError(f"actions has shape {checked.shape}; {expected} expected, one row an environment")
        if not np.isfinite(checked).all():
            row = int(np.flatnonzero(~np.isfinite(checked).all(axis=1))[0])
            raise NonFiniteError(f"actions holds {checked[row].tolist()} for {self._place(row, ahead=1)}")
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

    def _place(self, row: int, ahead: int = 0) -> str:
        """Of the latest step, or of one ``ahead``: step 1 follows the reset, which is step 0."""
        task, step = self.task_names[self.task_ids[row]], int(self._episodes.lengths[row]) + ahead
        return f"task {task!r}, environment {row}, step {step} of its episode"

    # The rest of SB3's interface

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Start anew with ``seed`` at the next reset: then all is as if built with it (goals included).

        SB3's algorithms call this with their own seed when they are constructed. None draws a fresh seed.

        Returns:
            The seed, once for each environment (their own streams are spawned from it).

        Raises:
            ArgumentError: if it is no integer in [0, 2^63).
        """
        seed = fresh_seed() if seed is None else check("seed", seed, Seed)
        if self._used or seed != self.initial_seed:
            self._pending_seed = seed
        self.action_space.seed(seed)
        return [seed] * self.num_envs

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """There are no options of a reset: an episode follows from its seed, so that checkpoints can repeat it.

        Raises:
            ArgumentError: if ``options`` holds one.
        """
        given = options if isinstance(options, (list, tuple)) else [options]
        if any(one is not None and one != {} for one in given):
            raise ArgumentError(
                f"options must be empty, got {options!r}: an episode follows from its seed alone; what is to vary goes "
                "into the functions that build the environments"
            )

    def close(self) -> None:
        """Let go of the simulators; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close_rows()
