"""``toy-reach``: a small multi-task set whose best policy is known, and that a SAC solves within a minute.

A point in the square [-1, 1]^2 has to reach a goal. The tasks conflict: task k turns the action by k quarter
turns, so that the same action in the same place moves the point right, up, left or down, and only the one-hot
tells which. The tasks are imbalanced: their rewards differ in scale by up to a thousand. The optimal policy
and its return are known.

- state: position (2) and goal (2), each in [-1, 1]; action: 2 numbers in [-1, 1];
- dynamics: ``position += 0.1 * turn_k(action)``, clipped to the square;
- reward: ``scale_k * (1 - (|dx| + |dy|) / 4)`` after the move, in [0, scale_k];
- success: ``|dx| + |dy| < 0.05``;
- horizon: 25 steps (the far corner is 20 away).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl_imgrad.envs.episodes import BoolArray, FloatArray, IntArray
from mtrl_imgrad.envs.seeding import RowStreams
from mtrl_imgrad.envs.task_sets import TOY_TASKS
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv

STEP_SIZE = 0.1
SUCCESS_DISTANCE = 0.05
HORIZON = 25

# Turn of the action in each task (a quarter turn more from one to the next), and scale of its rewards.
_TURNS = dict(zip(TOY_TASKS, ([[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]), strict=True))
_SCALES = dict(zip(TOY_TASKS, (1.0, 10.0, 100.0, 0.1), strict=True))


class ToyReachVecEnv(MultiTaskVecEnv):
    """The toy set, vectorised in NumPy; see the module for its rules.

    Args:
        task_names: Names out of ``TOY_TASKS``.
        seed: Seed of starts and goals.
        num_envs_per_task: Environments a task.
        horizon: Steps of an episode.
        one_hot: Whether observations end with the task's one-hot; without it the tasks cannot be told apart.
        terminate_on_success: Whether the first success ends the episode.
    """

    backend = "toy"

    def __init__(
        self,
        task_names: Sequence[str] = TOY_TASKS,
        *,
        seed: int = 0,
        num_envs_per_task: int = 1,
        horizon: int = HORIZON,
        one_hot: bool = True,
        terminate_on_success: bool = False,
    ) -> None:
        super().__init__(
            task_names,
            state_space=spaces.Box(-1.0, 1.0, (4,), dtype=np.float32),
            action_space=spaces.Box(-1.0, 1.0, (2,), dtype=np.float32),
            num_envs_per_task=num_envs_per_task,
            horizon=horizon,
            seed=seed,
            one_hot=one_hot,
            terminate_on_success=terminate_on_success,
        )
        self.reward_scales = np.array([_SCALES[name] for name in self.task_names])
        self._turns = np.array([_TURNS[name] for name in self.task_names], dtype=float)
        self._state = np.zeros((self.num_envs, 4))
        self._actions = np.zeros((self.num_envs, 2))
        self._seed_rows(seed)

    def _seed_rows(self, seed: int) -> None:
        self._streams = RowStreams(seed, self.num_tasks, self.num_envs_per_task)

    def _reset_rows(self, rows: IntArray) -> FloatArray:
        for row in rows.tolist():
            self._state[row] = self._streams.at_reset(row).uniform(-1.0, 1.0, size=4)
        return self._state[rows]

    def _get_streams(self) -> list[Any]:
        return self._streams.get_state()

    def _set_streams(self, streams: list[Any]) -> None:
        self._streams.set_state(streams)

    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        self._actions = np.clip(actions, -1.0, 1.0).astype(float)

    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        moves = np.einsum("nij,nj->ni", self._turns[self.task_ids], self._actions)
        self._state[:, :2] = np.clip(self._state[:, :2] + STEP_SIZE * moves, -1.0, 1.0)
        distance = np.abs(self._state[:, 2:] - self._state[:, :2]).sum(axis=1)
        rewards = self.reward_scales[self.task_ids] * (1.0 - distance / 4.0)
        return self._state.copy(), rewards, distance < SUCCESS_DISTANCE

    def optimal_action(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The best action for each row: on each axis as far towards the goal as one step goes.

        Moves on one axis cost nothing on the other, so this is best at every step at once.

        Args:
            observations: ``[num_envs, observation]`` as ``reset`` and ``step`` return them.

        Returns:
            Actions ``[num_envs, 2]``.
        """
        wanted = np.clip((observations[:, 2:4] - observations[:, :2]) / STEP_SIZE, -1.0, 1.0)
        return np.einsum("nij,ni->nj", self._turns[self.task_ids], wanted).astype(np.float32)

    def optimal_return(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The return of a whole episode under the best policy.

        Args:
            observations: First observations of the episodes ``[num_envs, observation]``.

        Returns:
            Undiscounted returns ``[num_envs]`` over ``horizon`` steps (without ``terminate_on_success``).
        """
        gaps = np.abs(observations[:, 2:4] - observations[:, :2]).astype(float)
        steps = np.arange(1, self.horizon + 1)
        left = np.maximum(gaps[:, :, None] - STEP_SIZE * steps, 0.0).sum(axis=(1, 2))
        return self.reward_scales[self.task_ids] * (self.horizon - left / 4.0)
