"""A group of Meta-World environments stepped in one process: the whole of them, or one worker's share.

Goals. Meta-World draws a *task vector* (goal, object position) by resetting an environment, which simulates
the arm for 250 steps, and takes 6 s and more to draw MT10's five hundred; it also builds every environment
twice and uses NumPy's global generator. Here the vectors come from the same ``reset_model`` of the same
environment that will be stepped, with the arm's simulation left out (no task's vector depends on it) and a
generator of the task's own. The draw is uniform over the task's reset space, rejections included.

A fresh goal at every reset is drawn in the same way and *then* set. Meta-World's own unfrozen mode resets
twice, with a vector each time, and so shows one object's position in the first observation and simulates
another.

Compiling a task's model takes nearly all the time that building an environment takes. It is done once a process for
each of the last `KEPT_MODELS` tasks; further copies, an evaluation's environments say, take a copy of the outcome.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("Meta-World", "metaworld")

import copy
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from mtrl_imgrad.envs.seeding import goal_generator, row_generator
from mtrl_imgrad.envs.workers.processes import MissingMethodError
from mtrl_imgrad.envs.workers.rows_config import RowsConfig
from mtrl_imgrad.errors import EnvironmentFaultError

STATE_SIZE = 39
KEPT_MODELS = 10
"""A model takes up to 20 MB."""
FloatArray = npt.NDArray[np.float64]


class MetaWorldRows:
    """Meta-World environments, one a row; row numbers in the methods are positions within the group."""

    def __init__(self, config: RowsConfig) -> None:
        self._config = config
        options = {"reward_function_version": config.reward_version, "render_mode": config.render_mode}
        self.envs = [build_environment(name, **options) for name in config.task_names]
        self.seed(config.seed)

    def seed(self, seed: int) -> None:
        """Draw the lists of goals and start every stream anew."""
        streams = list(zip(self._config.tasks, self._config.copies, strict=True))
        self._generators = [row_generator(seed, task, copy) for task, copy in streams]
        self.goals: list[list[FloatArray] | None] = [None] * len(self.envs)
        if self._config.num_goals is not None:
            for row, (task, _) in enumerate(streams):
                generator = goal_generator(seed, task)
                self.goals[row] = [draw_task_vector(self.envs[row], generator) for _ in range(self._config.num_goals)]

    def reset(self, rows: Sequence[int]) -> tuple[FloatArray, list[Any]]:
        """Start an episode in each of ``rows``, each with a goal drawn.

        Returns:
            Observations ``[len(rows), 39]``, and for each of ``rows`` what this reset drew from, for ``set_streams``.

        Raises:
            EnvironmentFaultError: An environment raised; names its task and index.
        """
        observations, before = np.empty((len(rows), STATE_SIZE)), []
        for at, row in enumerate(rows):
            env, goals, generator = self.envs[row], self.goals[row], self._generators[row]
            before.append(generator.bit_generator.state)
            with self._named(row):
                vector = draw_task_vector(env, generator) if goals is None else goals[generator.integers(len(goals))]
                set_task_vector(env, self._config.task_names[row], vector)
                observations[at] = env.reset()[0]
        return observations, before

    def set_streams(self, streams: Sequence[Any]) -> None:
        """Have the next reset of every row draw from there."""
        for generator, state in zip(self._generators, streams, strict=True):
            generator.bit_generator.state = state

    def step(self, actions: npt.NDArray[np.float32]) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        """Step every row; observations ``[n, 39]``, rewards and successes ``[n]``.

        Raises:
            EnvironmentFaultError: An environment raised; names its task and index.
        """
        count = len(self.envs)
        observations, rewards, success = (
            np.empty((count, STATE_SIZE)),
            np.empty(count),
            np.empty(count, dtype=bool),
        )
        for row, env in enumerate(self.envs):
            with self._named(row):
                observations[row], rewards[row], _, _, info = env.step(actions[row])
            success[row] = info["success"] > 0.5
        return observations, rewards, success

    @contextmanager
    def _named(self, row: int) -> Iterator[None]:
        """Turn an exception into an error with task and environment."""
        try:
            yield
        except Exception as error:
            place = f"task {self._config.task_names[row]!r}, environment {self._config.rows[row]}"
            raise EnvironmentFaultError(f"{place} raised {type(error).__name__}: {error}") from error

    def get(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Attribute ``name`` of the environments in ``rows``."""
        return [getattr(self.envs[row], name) for row in rows]

    def set(self, name: str, value: Any, rows: Sequence[int]) -> None:
        """Set attribute ``name`` of the environments in ``rows``."""
        for row in rows:
            setattr(self.envs[row], name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        """Call method ``name`` of the environments in ``rows``; of none of them, if one lacks it."""
        try:
            methods = self.get(name, rows)
        except AttributeError as error:
            raise MissingMethodError(str(error)) from error
        return [method(*args, **kwargs) for method in methods]

    def close(self) -> None:
        """Close the environments and their renderers."""
        for env in self.envs:
            env.close()


def build_environment(task_name: str, **options: Any) -> Any:
    """A raw Meta-World environment, which compiles nothing that has just been compiled.

    Args:
        task_name: Full name, such as ``"reach-v3"``.
        **options: Of its class.
    """
    env_class = ALL_V3_ENVIRONMENTS[task_name]
    env = env_class.__new__(env_class)
    env._initialize_simulation = lambda: _initialize_simulation(env)
    try:
        env.__init__(**options)
    finally:
        del env._initialize_simulation
    return env


_models: OrderedDict[tuple[str, int, int], Any] = OrderedDict()
"""Compiled models as they were before anything moved their bodies, the last one used at the end."""


def _initialize_simulation(env: Any) -> tuple[Any, Any]:
    """What Gymnasium's method of this name does, with a copy of a model that is kept."""
    key = env.fullpath, env.width, env.height
    if key not in _models:
        _models[key], _ = type(env)._initialize_simulation(env)
        if len(_models) > KEPT_MODELS:
            _models.popitem(last=False)
    _models.move_to_end(key)
    model = copy.copy(_models[key])
    return model, mujoco.MjData(model)


def draw_task_vector(env: Any, generator: np.random.Generator) -> FloatArray:
    """Draw a task vector uniformly from the task's reset space, by the environment's own rule of rejection.

    Args:
        env: A raw Meta-World environment; it needs a reset before its next step.
        generator: Where the numbers come from.

    Returns:
        The vector that ``set_task_vector`` takes.
    """
    # Meta-World's own switches: draw a vector in `reset_model`, from this generator.
    env._set_task_called = True
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env.np_random = generator
    env._reset_hand = lambda steps=50: setattr(env, "init_tcp", env.tcp_center)  # the arm need not move for this
    try:
        env.reset_model()
    finally:
        del env._reset_hand
        env._freeze_rand_vec = True
    return np.array(env._last_rand_vec, dtype=float)


def set_task_vector(env: Any, task_name: str, vector: FloatArray) -> None:
    """Set goal and object position of the next reset; the goal is shown, as in the multi-task benchmarks."""
    data = {"rand_vec": vector, "env_cls": type(env), "partially_observable": False}
    env.set_task(Task(env_name=task_name, data=pickle.dumps(data)))
