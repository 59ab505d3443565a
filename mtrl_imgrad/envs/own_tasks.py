"""Any Gymnasium environments as the tasks of one agent: ``make_vec_env({"walk": make_walk, "run": make_run})``.

The environments need what an agent with one network needs: flat Box observations (shorter ones are filled up with zeros
at the end) and one Box of actions for all. They may end their episodes by themselves, by termination or truncation.
Success is what an info says under ``success`` or ``is_success``; a task that says nothing never succeeds, and is judged
by its return.

Every episode is a ``reset(seed=...)`` with a seed drawn from the row's own stream, so an episode follows from its seed
and its actions, and a checkpoint can repeat it. An environment that carries anything else from one episode to the next
cannot be restored; loading then says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl_imgrad.envs.episodes import BoolArray, FloatArray, IntArray
from mtrl_imgrad.envs.restoring import to_float32
from mtrl_imgrad.envs.seeding import RowStreams
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError

__all__ = ["MakeEnv", "OwnTasksVecEnv"]

MakeEnv = str | Callable[[], gym.Env]
"""A Gymnasium id, or a function that builds an environment."""

SUCCESS_KEYS = ("success", "is_success")


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
        ArgumentError: An environment cannot be built, or its spaces are not as above; names the task.
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
        names = _checked_names(tasks)
        self.envs = [_build(name, tasks[name]) for name in names for _ in range(num_envs_per_task)]
        """The environments, one a row."""
        firsts = dict(zip(names, self.envs[::num_envs_per_task], strict=True))
        self._widths = [_width(name, env) for name, env in firsts.items() for _ in range(num_envs_per_task)]
        super().__init__(
            names,
            state_space=_common_observations([env.observation_space for env in firsts.values()]),
            action_space=_common_actions(firsts),
            num_envs_per_task=num_envs_per_task,
            horizon=_common_horizon(firsts) if horizon is None else horizon,
            seed=seed,
            one_hot=one_hot,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
        )
        self._actions = np.zeros((self.num_envs, *self.action_space.shape), dtype=np.float32)  # type: ignore[misc]
        self._terminated, self._truncated = np.zeros((2, self.num_envs), dtype=bool)
        self._seed_rows(seed)

    def _seed_rows(self, seed: int) -> None:
        self._streams = RowStreams(seed, self.num_tasks, self.num_envs_per_task)

    def _reset_rows(self, rows: IntArray) -> FloatArray:
        states = np.zeros((len(rows), self.state_size))
        for at, row in enumerate(rows.tolist()):
            seed = int(self._streams.at_reset(row).integers(2**31))
            observation, _ = self._ask(row, self.envs[row].reset, seed=seed)
            states[at] = self._filled_up(row, observation)
        return states

    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        self._actions = actions

    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        states, rewards = np.zeros((self.num_envs, self.state_size)), np.zeros(self.num_envs)
        success = np.zeros(self.num_envs, dtype=bool)
        for row in range(self.num_envs):
            states[row], rewards[row], success[row] = self._step_row(row, self._actions[row])
        return states, rewards, success

    def _endings(self) -> tuple[BoolArray, BoolArray]:
        return self._terminated.copy(), self._truncated.copy()

    def _step_row(self, row: int, action: npt.NDArray[np.float32]) -> tuple[FloatArray, float, bool]:
        found = self._ask(row, self.envs[row].step, action)
        observation, reward, self._terminated[row], self._truncated[row], info = found
        success = next((info[key] for key in SUCCESS_KEYS if key in info), 0.0)
        return self._filled_up(row, observation), float(reward), bool(success > 0)

    def _ask(self, row: int, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            raise EnvironmentFaultError(f"{self._place(row)} raised {type(error).__name__}: {error}") from error

    def _filled_up(self, row: int, observation: Any) -> FloatArray:
        """The observation with zeros at its end, where another task's is longer."""
        numbers = np.asarray(observation, dtype=float)
        if numbers.shape != (self._widths[row],):
            raise EnvironmentFaultError(
                f"the observation has shape {numbers.shape}, its space ({self._widths[row]},), in {self._place(row)}"
            )
        return np.pad(numbers, (0, self.state_size - len(numbers)))

    # Restoring: a row must not be stepped outside of its episode, so each is brought back by itself.

    def _get_streams(self) -> list[Any]:
        return self._streams.get_state()

    def _set_streams(self, streams: list[Any]) -> None:
        self._streams.set_state(streams)

    def _repeat(self, lengths: IntArray, actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        states = self._reset_rows(np.arange(self.num_envs))
        for row, length in enumerate(lengths.tolist()):
            for step in range(length):
                states[row], _, _ = self._step_row(row, actions[step, row])
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
        """A picture of every environment; None where nothing is rendered."""
        if self._render_mode is None:
            return [None] * self.num_envs
        return [env.render() for env in self.envs]  # type: ignore[misc]

    def _close_rows(self) -> None:
        for env in self.envs:
            env.close()


def _checked_names(tasks: Mapping[str, MakeEnv]) -> list[str]:
    if not tasks:
        raise ArgumentError("tasks is empty: name at least one task")
    for name, make in tasks.items():
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"tasks must have names as keys, got {name!r}")
        if not isinstance(make, str) and not callable(make):
            raise ArgumentError(
                f"tasks[{name!r}] must be a Gymnasium id or a function that builds an environment, got {make!r}"
            )
    return list(tasks)


def _build(name: str, make: MakeEnv) -> gym.Env:
    try:
        env = gym.make(make) if isinstance(make, str) else make()
    except Exception as error:
        raise ArgumentError(f"tasks[{name!r}] cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(env, gym.Env):
        raise ArgumentError(f"tasks[{name!r}] must build a gymnasium.Env, got {type(env).__name__}")
    return env


def _width(name: str, env: gym.Env) -> int:
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"tasks[{name!r}] must have a flat Box of observations (FlattenObservation), got {space}")
    return int(space.shape[0])


def _common_observations(given: list[spaces.Space]) -> spaces.Box:
    """Bounds that hold for all tasks; zeros at the end of shorter observations lie within them."""
    boxes = [box for box in given if isinstance(box, spaces.Box)]
    width = max(box.shape[0] for box in boxes)
    low, high = np.zeros((2, len(boxes), width))
    for row, box in enumerate(boxes):
        low[row, : box.shape[0]], high[row, : box.shape[0]] = box.low, box.high
    return spaces.Box(low.min(0).astype(np.float32), high.max(0).astype(np.float32), dtype=np.float32)


def _common_actions(envs: Mapping[str, gym.Env]) -> spaces.Box:
    (first, env), *others = envs.items()
    space = env.action_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"tasks[{first!r}] must have a flat Box of actions, got {space}")
    for name, other in others:
        if other.action_space != space:
            raise ArgumentError(
                f"tasks[{name!r}] has the actions {other.action_space}, tasks[{first!r}] has {space}: all tasks must "
                "have the same (gymnasium.wrappers.RescaleAction brings bounds together)"
            )
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _common_horizon(envs: Mapping[str, gym.Env]) -> int:
    found = {name: None if env.spec is None else env.spec.max_episode_steps for name, env in envs.items()}
    unknown = [name for name, steps in found.items() if steps is None]
    if unknown:
        raise ArgumentError(f"horizon must be given: tasks[{unknown[0]!r}] says of no number of steps")
    return max(steps for steps in found.values() if steps is not None)
