"""Any Gymnasium environments as the tasks of one agent: ``make_vec_env({"walk": make_walk, "run": make_run})``.

The environments need what an agent with one network needs: flat Box observations (shorter ones are filled up with zeros
at the end) and one Box of actions for all. They may end their episodes by themselves, by termination or truncation.
Success is what an info says under ``success`` or ``is_success``, in every episode or in none; a task that says nothing
has no success rate, and is judged by its return.

What they return is checked, and copied: an environment may write its next observation over the last one. A fault is an
`EnvironmentFaultError` with task, environment and step.

Every episode is a ``reset(seed=...)`` with a seed drawn from the row's own stream, so an episode follows from its seed
and its actions, and a checkpoint can repeat it. An environment that carries anything else from one episode to the next
cannot be restored; loading then says so.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtrl_imgrad.envs.backends.own_answers import WrongAnswerError, read_observation, read_reset, read_step
from mtrl_imgrad.envs.backends.own_spaces import (
    MakeEnv,
    build_env,
    check_names,
    common_actions,
    common_horizon,
    common_observations,
    observation_width,
)
from mtrl_imgrad.envs.episodes import BoolArray, FloatArray, IntArray
from mtrl_imgrad.envs.restoring import to_float32
from mtrl_imgrad.envs.seeding import RowStreams
from mtrl_imgrad.envs.success import SUCCESS_KEYS, KnownSuccess
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError

_BOUND_CHECKS = 20
"""Observations of each environment that are held against its space."""
_owners: weakref.WeakValueDictionary[int, OwnTasksVecEnv] = weakref.WeakValueDictionary()
"""By the id of an innermost environment: who steps it."""


class _NamedFaults:
    """A context that turns an exception or a wrong answer into an error with task, environment and step.

    A class, since ``contextlib`` lets the ``StopIteration`` of an environment that ran out of its data pass unnamed.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, WrongAnswerError):
            raise EnvironmentFaultError(f"{error}, in {self._where}") from None
        if isinstance(error, Exception):
            raise EnvironmentFaultError(f"{self._where} raised {type(error).__name__}: {error}") from error


class OwnTasksVecEnv(MultiTaskVecEnv):
    """Gymnasium environments, stepped one after the other in this process.

    Args:
        tasks: By name what builds the task's environment; called once for each copy.
        seed: Seed of all episodes.
        num_envs_per_task: Environments a task.
        horizon: Steps after which an episode is truncated, if its environment does not end it before. None takes the
            largest ``max_episode_steps`` that the environments are registered with.
        one_hot: Whether observations end with the task's one-hot.
        terminate_on_success: Whether the first success ends the episode.
        render_mode: None or ``"rgb_array"``, for which the environments must have been made.

    Raises:
        ArgumentError: An environment cannot be built, is already stepped elsewhere, or its spaces are not as above;
            names the task.
    """

    backend = "gymnasium"

    def __init__(
        self,
        tasks: Mapping[str, MakeEnv],
        *,
        seed: int = 0,
        num_envs_per_task: int = 1,
        horizon: int | None = None,
        one_hot: bool = True,
        terminate_on_success: bool = False,
        render_mode: str | None = None,
    ) -> None:
        names = check_names(tasks)
        self.envs: list[gym.Env] = []
        """The environments, one a row."""
        try:
            for name in names:
                for _ in range(num_envs_per_task):
                    self._take(name, build_env(name, tasks[name]), names, num_envs_per_task)
            firsts = dict(zip(names, self.envs[::num_envs_per_task], strict=True))
            widths = [observation_width(name, env) for name, env in firsts.items()]
            action_space = common_actions(firsts)
            horizon = common_horizon(firsts) if horizon is None else horizon
        except ArgumentError:
            self._closed = True
            with suppress(EnvironmentFaultError):
                self._close_rows()
            raise
        self._widths = np.repeat(widths, num_envs_per_task).tolist()
        super().__init__(
            names,
            state_space=common_observations([env.observation_space for env in firsts.values()]),
            action_space=action_space,
            num_envs_per_task=num_envs_per_task,
            horizon=horizon,
            seed=seed,
            one_hot=one_hot,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
        )
        self._actions = np.zeros((self.num_envs, *self.action_space.shape), dtype=np.float32)  # type: ignore[misc]
        self._terminated, self._truncated = np.zeros((2, self.num_envs), dtype=bool)
        self._told, self._told_before_reset = np.zeros((2, self.num_envs), dtype=bool)  # of success, in this episode
        self._known_success = KnownSuccess(self.num_tasks)
        self._unchecked = np.full(self.num_envs, _BOUND_CHECKS)
        self._seed_rows(seed)

    def _take(self, name: str, env: gym.Env, names: list[str], copies: int) -> None:
        """Add a row, unless its environment is a row already, here or elsewhere; wrappers around it do not count."""
        inner = env.unwrapped
        for row, other in enumerate(self.envs):
            if other.unwrapped is inner:
                raise ArgumentError(
                    f"tasks[{name!r}] must build a new environment each time, got the one that environment {row} (task "
                    f"{names[row // copies]!r}) has already: stepped twice, it would mix their episodes"
                )
        owner = _owners.get(id(inner))
        if owner is not None and not owner._closed:
            raise ArgumentError(
                f"tasks[{name!r}] must build a new environment each time, got one that another vector environment "
                "steps (of training and of evaluation?); build a new one, or close the other first"
            )
        self.envs.append(env)
        _owners[id(inner)] = self

    def _seed_rows(self, seed: int) -> None:
        self._streams = RowStreams(seed, self.num_tasks, self.num_envs_per_task)

    def _reset_rows(self, rows: IntArray) -> FloatArray:
        states = np.zeros((len(rows), self.state_size))
        for at, row in enumerate(rows.tolist()):
            seed = int(self._streams.at_reset(row).integers(2**31))
            with _NamedFaults(self._where(row, "at its reset")):
                states[at] = self._padded(row, read_reset(self.envs[row].reset(seed=seed)))
            self._told[row] = False
        return states

    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        self._actions = actions

    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        states, rewards = np.zeros((self.num_envs, self.state_size)), np.zeros(self.num_envs)
        success = np.zeros(self.num_envs, dtype=bool)
        for row in range(self.num_envs):
            step = int(self._episodes.lengths[row]) + 1
            states[row], rewards[row], success[row] = self._step_row(row, self._actions[row], step)
        self._told_before_reset = self._told.copy()
        return states, rewards, success

    def _endings(self) -> tuple[BoolArray, BoolArray]:
        return self._terminated.copy(), self._truncated.copy()

    def _step_row(self, row: int, action: npt.NDArray[np.float32], step: int) -> tuple[FloatArray, float, bool]:
        with _NamedFaults(self._where(row, f"step {step} of its episode")):
            answer = read_step(self.envs[row].step(action.copy()))  # it may change its action in place
            observation, reward, self._terminated[row], self._truncated[row], success = answer
            state = self._padded(row, observation)
        if success is not None:
            self._told[row] = True
        return state, reward, bool(success)

    def _where(self, row: int, when: str) -> str:
        return f"task {self.task_names[self.task_ids[row]]!r}, environment {row}, {when}"

    def step_wait(self) -> tuple[FloatArray, FloatArray, BoolArray, list[dict[str, Any]]]:
        """As `MultiTaskVecEnv.step_wait`, but infos speak of success only where the environment does."""
        observations, rewards, dones, infos = super().step_wait()
        self._running = False  # until the ends are known to be whole
        for row in np.flatnonzero(dones).tolist():
            place = self._where(row, "at the end of its episode")
            self._known_success.check(int(self.task_ids[row]), bool(self._told_before_reset[row]), place)
        self._running = True
        for row in np.flatnonzero(~self._told_before_reset).tolist():
            for key in SUCCESS_KEYS:
                infos[row].pop(key, None)
        return observations, rewards, dones, infos

    def _padded(self, row: int, observation: Any) -> FloatArray:
        """A copy of the observation with zeros at its end, where another task's is longer."""
        numbers = read_observation(observation, self._widths[row])
        if self._unchecked[row]:
            self._check_bounds(row, numbers)
        filled = np.zeros(self.state_size)
        filled[: len(numbers)] = numbers
        return filled

    def _check_bounds(self, row: int, observation: FloatArray) -> None:
        """A warning, once for each row: nothing here relies on the bounds, and many environments overstep theirs."""
        self._unchecked[row] -= 1
        space = self.envs[row].observation_space
        assert isinstance(space, gym.spaces.Box)
        slack = 1e-5 * np.maximum(1.0, np.abs(observation))  # float32
        outside = np.flatnonzero((observation < space.low - slack) | (observation > space.high + slack))
        if len(outside):
            at = int(outside[0])
            self._unchecked[row] = 0
            warnings.warn(
                f"observation[{at}] is {observation[at]:g}, outside of its space, [{space.low[at]:g}, "
                f"{space.high[at]:g}], in task {self.task_names[self.task_ids[row]]!r}, environment {row}",
                stacklevel=2,
            )

    # Restoring: a row must not be stepped outside of its episode, so each is brought back by itself.

    def _get_streams(self) -> list[Any]:
        return self._streams.get_state()

    def _set_streams(self, streams: list[Any]) -> None:
        self._streams.set_state(streams)

    def _repeat(self, lengths: IntArray, actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        states = self._reset_rows(np.arange(self.num_envs))
        for row, length in enumerate(lengths.tolist()):
            for step in range(length):
                states[row], _, _ = self._step_row(row, actions[step, row], step + 1)
        return to_float32(states)

    # SB3's way to the single environments

    def _get_row_attr(self, name: str, rows: list[int]) -> list[Any]:
        return [self.envs[row].get_wrapper_attr(name) for row in rows]

    def _set_row_attr(self, name: str, value: Any, rows: list[int]) -> None:
        for row in rows:
            self.envs[row].set_wrapper_attr(name, value)

    def _call_rows(self, name: str, rows: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        return [self.envs[row].get_wrapper_attr(name)(*args, **kwargs) for row in rows]

    def get_images(self) -> list[np.ndarray | None]:
        """A picture of every environment; None where nothing is rendered.

        Raises:
            EnvironmentFaultError: if an environment renders something else than ``[height, width, 3]``.
        """
        if self._render_mode is None:
            return [None] * self.num_envs
        return [self._picture(row) for row in range(self.num_envs)]

    def _picture(self, row: int) -> np.ndarray:
        with _NamedFaults(self._where(row, "as it is rendered")):
            image: Any = self.envs[row].render()
            if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[-1] != 3:
                raise WrongAnswerError(
                    f"render must return [height, width, 3], got {type(image).__name__}: was it made with "
                    f"render_mode={self._render_mode!r}?"
                )
        return image

    def _close_rows(self) -> None:
        failures = []
        for row, env in enumerate(self.envs):
            try:
                env.close()
            except Exception as error:
                failures.append((row, error))
        if failures:
            row, first = failures[0]
            raise EnvironmentFaultError(
                f"closing environment {row} raised {type(first).__name__}: {first}; the others are closed"
            ) from first
