"""Meta-World on EnvPool: the fifty v3 tasks ported natively, twice as fast a core and on all cores at once.

One pool a task; a step is sent to all pools before any is waited for, so the tasks run side by side.

What differs from the reference (``metaworld``) back-end:

- Every reset draws the task vector (goal, object position) uniformly from the task's whole reset space. There
  is no list of fifty goals: ``num_goals`` must be None. Train here, evaluate on the reference.
- v2 rewards only.
- The generator of each environment is seeded at construction; ``seed`` therefore builds the pools anew at the
  next reset. Every environment has a seed of its own: EnvPool itself would give environment i of a pool
  ``seed + i``, so that pools with neighbouring seeds would share streams.
- Simulator states can be neither read nor set, and there is no rendering.
- EnvPool 1.2.5 brings MuJoCo 3.6.0, Meta-World 3.1.1 asks for 3.3.0. Without contacts the two give the same
  observations (to 1e-7) and rewards (to 1e-6) for the same goal and actions; loose objects settle a little
  differently (by up to 1e-3), and contacts, once made, may go otherwise.
- The first observation of an episode is taken after the kinematics are updated: the hand is up to 1e-4 away
  from the reference's in drawer-open and window-open, the handle of window-close 0.2.
- pick-place's reward uses the finger pads' position at construction, where the reference, by a view it keeps,
  uses the present one: up to 0.15 apart in free motion, 0.05 % of an expert's return. (Outside MT10,
  door-lock, push-back, soccer, sweep and sweep-into use such positions too.)

The last three are all there is for MT10: with MuJoCo 3.6.0 and fixed pads under the reference, whole episodes
of scripted experts agree to 1e-7 and 2e-6. ``tests/envs/backends/test_backend_parity.py`` holds the two together.

EnvPool resets an environment on the step *after* its episode's end; here the ended rows are reset at once, so
that the step that ends an episode returns the next one's first observation, as SB3 expects.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl_imgrad.envs.episodes import BoolArray, FloatArray, IntArray
from mtrl_imgrad.envs.seeding import row_seed
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.envs.workers.processes import available_cores
from mtrl_imgrad.errors import ArgumentError

_STATE_SIZE, _ACTION_SIZE = 39, 4


class EnvPoolVecEnv(MultiTaskVecEnv):
    """Meta-World tasks stepped by EnvPool; see the module for what differs from the reference.

    Args:
        task_names: Full names, such as ``"reach-v3"``.
        seed: Seed of every environment's task vectors.
        num_envs_per_task: Environments a task, which is the size of its pool.
        horizon: Steps of an episode, 1 to 500.
        one_hot: Whether observations end with the task's one-hot.
        terminate_on_success: Whether the first success ends the episode.
        num_threads: Simulator threads of each pool; None takes ``default_num_threads``.

    Raises:
        ImportError: EnvPool is not installed.
        ArgumentError: ``num_threads`` is not a positive integer.
    """

    backend = "envpool"

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        seed: int = 0,
        num_envs_per_task: int = 1,
        horizon: int = 500,
        one_hot: bool = True,
        terminate_on_success: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self._envpool: Any = importlib.import_module("envpool")
        super().__init__(
            task_names,
            state_space=spaces.Box(-np.inf, np.inf, (_STATE_SIZE,), dtype=np.float32),
            action_space=spaces.Box(-1.0, 1.0, (_ACTION_SIZE,), dtype=np.float32),
            num_envs_per_task=num_envs_per_task,
            horizon=horizon,
            seed=seed,
            one_hot=one_hot,
            terminate_on_success=terminate_on_success,
        )
        if num_threads is not None and num_threads < 1:
            raise ArgumentError(f"num_threads must be at least 1, not {num_threads}")
        self.num_threads = num_threads or default_num_threads(self.num_tasks, num_envs_per_task)
        self._slices = [
            slice(task * num_envs_per_task, (task + 1) * num_envs_per_task) for task in range(self.num_tasks)
        ]
        self._pools: list[Any] = []
        self._interrupted = False
        self._seed_rows(seed)

    def _seed_rows(self, seed: int) -> None:
        copies = range(self.num_envs_per_task)
        self._pools = [
            self._make_pool(name, [row_seed(seed, task, copy) for copy in copies])
            for task, name in enumerate(self.task_names)
        ]
        self._resets = np.zeros(self.num_envs, dtype=np.int64)

    def _make_pool(self, name: str, seeds: list[int]) -> Any:
        return self._envpool.make_gymnasium(
            _pool_id(name),
            num_envs=self.num_envs_per_task,
            num_threads=self.num_threads,
            env_seed=seeds,
            max_episode_steps=self.horizon,
            partially_observable=False,  # the multi-task benchmarks show the goal
        )

    def _reset_rows(self, rows: IntArray) -> FloatArray:
        if self._interrupted:  # some pools hold a step's result that nobody took: start with fresh ones
            self._seed_rows(self.initial_seed)
        self._interrupted = True
        tasks = self.task_ids[rows]
        touched = np.unique(tasks)
        for task in touched.tolist():
            self._pools[task]._reset((rows[tasks == task] % self.num_envs_per_task).astype(np.int32))
        states = np.empty((len(rows), _STATE_SIZE))
        for task in touched.tolist():
            observations, info = self._pools[task].recv(reset=True)
            # A pool may answer out of order: put its answers where its rows were asked for.
            asked = np.flatnonzero(tasks == task)
            order = np.argsort(rows[asked])
            states[asked[order]] = observations[np.argsort(info["env_id"])]
        self._interrupted = False
        self._resets[rows] += 1
        return states

    def _get_streams(self) -> npt.NDArray[np.int64]:
        return self._resets.copy()  # a generator cannot be read; only resets draw from it

    def _set_streams(self, streams: npt.NDArray[np.int64]) -> None:
        self._seed_rows(self.initial_seed)
        # All resets but the last of each row, which the caller makes.
        for number in range(1, int(streams.max())):
            self._reset_rows(np.flatnonzero(streams > number))

    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        self._interrupted = True
        for pool, rows in zip(self._pools, self._slices, strict=True):
            pool.send(actions[rows])

    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        states = np.empty((self.num_envs, _STATE_SIZE))
        rewards = np.empty(self.num_envs)
        success = np.empty(self.num_envs, dtype=bool)
        for task, pool in enumerate(self._pools):
            observations, reward, _, _, info = pool.recv()
            rows = info["env_id"] + task * self.num_envs_per_task
            states[rows], rewards[rows], success[rows] = observations, reward, info["success"] > 0.5
        self._interrupted = False
        return states, rewards, success

    def _close_rows(self) -> None:
        self._pools = []  # a pool's threads end when it is collected


def default_num_threads(num_tasks: int, num_envs_per_task: int) -> int:
    """Threads of each pool: one, or more where there are fewer tasks than cores and copies to share them.

    One thread a pool is fastest as soon as there are as many pools as cores: a pool without work sleeps, and
    more threads only take turns.
    """
    return max(1, min(num_envs_per_task, available_cores() // num_tasks))


def _pool_id(task_name: str) -> str:
    """EnvPool's name of a Meta-World task: ``reach-wall-v3`` is ``MetaWorld/ReachWall-v3``."""
    words, version = task_name.rsplit("-", 1)
    return "MetaWorld/" + "".join(word.capitalize() for word in words.split("-")) + f"-{version}"
