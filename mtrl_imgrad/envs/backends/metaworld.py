"""Meta-World on Farama's own package: the reference back-end, in this process or in worker processes.

What it keeps of Meta-World: the environments, their rewards, success, goals shown in the observation. What it
does differently, because each has misled somebody:

- Every environment has random streams of its own; Meta-World's vector environments give all tasks the same
  seed.
- ``num_goals`` counts here; Meta-World rewrites a module's global, for every later environment of the
  process.
- Nothing touches NumPy's global generator.
- ``reward_version`` is checked; to Meta-World an unknown one silently means v1.
- The observation space is honest; Meta-World declares that the goal lies within [0, 0].
- Goals are drawn without simulating the arm, and every environment is built once: MT10 is built in about two
  seconds.

Observations are clipped by Meta-World on every step but not at a reset, and the first observation of
drawer-open and the window tasks is taken before the kinematics are updated (for window-close the handle is
0.2 away from where it is, in the first observation and in the second's previous frame). Both are left as they
are: they are the benchmark.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl_imgrad.envs.backends.metaworld_rows import STATE_SIZE, MetaWorldRows
from mtrl_imgrad.envs.episodes import BoolArray, FloatArray, IntArray
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.envs.workers.processes import InProcess, Pool, WorkerPool, available_cores
from mtrl_imgrad.envs.workers.restarting import RestartingPool
from mtrl_imgrad.envs.workers.rows_config import RowsConfig


class MetaWorldVecEnv(MultiTaskVecEnv):
    """Meta-World tasks stepped by the reference package.

    Args:
        task_names: Full names, such as ``"reach-v3"``.
        seed: Seed of goals and episodes.
        num_envs_per_task: Environments a task; they share its list of goals and draw from it independently.
        horizon: Steps of an episode, 1 to 500.
        one_hot: Whether observations end with the task's one-hot.
        terminate_on_success: Whether the first success ends the episode.
        vector_strategy: ``"sync"`` steps in this process, ``"async"`` in worker processes.
        reward_version: ``"v2"`` or ``"v1"``.
        num_goals: Goals of each task; None draws a fresh one at every reset.
        num_workers: Worker processes for ``"async"``; None takes one a core.
        worker_timeout: Seconds within which a worker has to answer.
        worker_restarts: How often the workers are started anew where one fails, see ``RestartingPool``.
        render_mode: None or ``"rgb_array"``.

    Raises:
        WorkerError: A worker process could not be started.
    """

    backend = "metaworld"
    rows_factory: Callable[[RowsConfig], Any] = MetaWorldRows
    """Builds a group of rows; a subclass may put another in its place."""

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        seed: int = 0,
        num_envs_per_task: int = 1,
        horizon: int = 500,
        one_hot: bool = True,
        terminate_on_success: bool = False,
        vector_strategy: str = "sync",
        reward_version: str = "v2",
        num_goals: int | None = 50,
        num_workers: int | None = None,
        worker_timeout: float = 60.0,
        worker_restarts: int = 0,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            task_names,
            state_space=spaces.Box(-np.inf, np.inf, (STATE_SIZE,), dtype=np.float32),
            action_space=spaces.Box(-1.0, 1.0, (4,), dtype=np.float32),
            num_envs_per_task=num_envs_per_task,
            horizon=horizon,
            seed=seed,
            one_hot=one_hot,
            terminate_on_success=terminate_on_success,
            render_mode=render_mode,
        )
        self.num_goals = num_goals
        self.vector_strategy = vector_strategy
        self.reward_version = reward_version
        workers = 1 if vector_strategy == "sync" else min(num_workers or available_cores(), self.num_envs)
        self._starts, self._stops = _shares(self.num_envs, workers)
        self._worker_timeout = worker_timeout
        self._rows_seed = seed
        self._streams: list[Any] = [None] * self.num_envs  # what the last reset of each row drew from
        self._pool: Pool
        if vector_strategy == "sync":
            self._pool = InProcess(type(self).rows_factory(self._config(0, self.num_envs)))
        elif worker_restarts:
            self._pool = RestartingPool(self._start_workers, self._restore_rows, worker_restarts)
        else:
            self._pool = self._start_workers()

    def _start_workers(self) -> WorkerPool:
        configs = [self._config(start, stop) for start, stop in zip(self._starts, self._stops, strict=True)]
        words = [", ".join(dict.fromkeys(config.task_names)) for config in configs]
        return WorkerPool(type(self).rows_factory, configs, words, self._worker_timeout)

    def _config(self, start: int, stop: int) -> RowsConfig:
        """Configuration of rows ``start`` to ``stop``."""
        tasks = self.task_ids[start:stop].tolist()
        return RowsConfig(
            rows=tuple(range(start, stop)),
            task_names=tuple(self.task_names[task] for task in tasks),
            tasks=tuple(tasks),
            copies=tuple(row % self.num_envs_per_task for row in range(start, stop)),
            seed=self._rows_seed,
            num_goals=self.num_goals,
            reward_version=self.reward_version,
            render_mode=self._render_mode,
        )

    def _seed_rows(self, seed: int) -> None:
        self._rows_seed = seed
        self._streams = [None] * self.num_envs
        self._pool.request("seed", [(seed,)] * len(self._pool))

    def _reset_rows(self, rows: IntArray) -> FloatArray:
        observations, streams = zip(*self._ask("reset", rows.tolist()), strict=True)
        for row, stream in zip(rows.tolist(), itertools.chain(*streams), strict=True):
            self._streams[row] = stream
        return np.concatenate(observations)

    def _get_streams(self) -> list[Any] | None:
        return None if None in self._streams else list(self._streams)

    def _set_streams(self, streams: list[Any]) -> None:
        shares = [(streams[a:b],) for a, b in zip(self._starts, self._stops, strict=True)]
        self._pool.request("set_streams", shares)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "num_goals": self.num_goals, "reward_version": self.reward_version}

    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        self._pool.send("step", [(actions[a:b],) for a, b in zip(self._starts, self._stops, strict=True)])

    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        observations, rewards, success = zip(*self._pool.receive(), strict=True)
        return np.concatenate(observations), np.concatenate(rewards), np.concatenate(success)

    def _close_rows(self) -> None:
        self._pool.close()

    def _ask(self, method: str, rows: Sequence[int], *args: Any) -> list[Any]:
        """Call ``method(*args, rows)`` of the groups that hold ``rows`` (ascending); a result for each."""
        shares = [[row - a for row in rows if a <= row < b] for a, b in zip(self._starts, self._stops, strict=True)]
        asked = [number for number, share in enumerate(shares) if share]
        return self._pool.request(method, [(*args, shares[number]) for number in asked], asked)

    def _ask_rows(self, method: str, rows: Sequence[int], *args: Any) -> list[Any]:
        """As ``_ask``, with a result for each of ``rows``, in their order."""
        ordered = sorted(set(rows))
        results = dict(zip(ordered, itertools.chain(*self._ask(method, ordered, *args)), strict=True))
        return [results[row] for row in rows]

    def _get_row_attr(self, name: str, rows: list[int]) -> list[Any]:
        return self._ask_rows("get", rows, name)

    def _set_row_attr(self, name: str, value: Any, rows: list[int]) -> None:
        self._ask("set", sorted(set(rows)), name, value)

    def _call_rows(self, name: str, rows: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        return self._ask_rows("call", rows, name, args, kwargs)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of every environment, uint8 ``[height, width, 3]``; None where nothing is rendered."""
        if self._render_mode is None:
            return super().get_images()
        return self.env_method("render")


def _shares(rows: int, workers: int) -> tuple[list[int], list[int]]:
    """First row and end of each worker's share; the shares differ by one row at most."""
    bounds = [rows * number // workers for number in range(workers + 1)]
    return bounds[:-1], bounds[1:]
