"""What is kept of training episodes: windows in which every task has its part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean

from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.agents.common.tasks import TaskLayout


class TrainingEpisodes(BaseAlgorithm):
    """The part of an agent that counts the episodes it learns from."""

    tasks: TaskLayout
    task_success_buffers: dict[str, deque[float]]
    """Success of each task's latest ``stats_window_size`` episodes."""

    @property
    def train_success(self) -> float:
        """Mean over tasks of the success of their latest training episodes; NaN before the first."""
        return float(safe_mean([*self._task_success().values()]))

    @property
    def episode_window(self) -> int:
        """Episodes in SB3's windows: ``stats_window_size``, or the next multiple of the number of environments.

        Where the episodes of all tasks end in one step, a shorter one would hold those of the last tasks alone.
        """
        size = self._stats_window_size
        return size if self.tasks.num_tasks == 1 else -(-size // self.n_envs) * self.n_envs

    def _setup_windows(self) -> None:
        """Empty windows for the tasks."""
        self.task_success_buffers = {name: deque(maxlen=self._stats_window_size) for name in self.tasks.names}

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps:  # as SB3 forgets its own episodes then
            self._setup_windows()
        setup = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self.ep_info_buffer = deque(self.ep_info_buffer or (), maxlen=self.episode_window)
        self.ep_success_buffer = deque(self.ep_success_buffer or (), maxlen=self.episode_window)
        return setup

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        for index in [] if dones is None else np.flatnonzero(dones).tolist():
            success = infos[index].get("is_success")
            if success is not None:
                self.task_success_buffers[self.tasks.task_of(index)].append(float(success))

    def _task_success(self) -> dict[str, float]:
        """Success of the tasks' latest training episodes, where there were any."""
        return {name: safe_mean(window) for name, window in self.task_success_buffers.items() if window}

    @contextmanager
    def _success_by_task(self) -> Iterator[None]:
        """Record each task's success, and have SB3 record their mean: its own window counts short episodes more."""
        rates = self._task_success()
        if self.tasks.num_tasks > 1:
            record_per_task(self.logger, "rollout/success_rate", list(rates), rates.values())
        window, self.ep_success_buffer = self.ep_success_buffer, deque(rates.values())
        try:
            yield
        finally:
            self.ep_success_buffer = window
