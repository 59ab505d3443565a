"""Mean early losses by task, which later losses are divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.state.parts import Parts
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable


class BaseLosses(Parts):
    """Each task's mean loss over one window of the steps that it was present for; a part of a combiner's state.

    Args:
        skip: steps before the window.
        window: steps in the window.
    """

    def __init__(self, skip: int, window: int) -> None:
        self.skip, self.window = skip, window
        self._steps, self._sums = TaskTable(), TaskTable()

    def means(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]`` float64 on the device of ``like`` [K]; NaN where a task's window is not over."""
        over = self._steps.rows(like, tasks) >= self.skip + self.window
        return torch.where(over, self._sums.rows(like, tasks) / self.window, torch.nan)

    def add(self, losses: Tensor, tasks: TaskIds | None, where: Tensor) -> None:
        """Take one step's losses ``[K]`` in, unless the flag ``where`` is false."""
        steps = self._steps.rows(losses, tasks)
        inside = (steps >= self.skip) & (steps < self.skip + self.window)
        self._sums.write(self._sums.rows(losses, tasks) + torch.where(inside, losses, 0.0), tasks, where)
        self._steps.write(steps + 1, tasks, where)
