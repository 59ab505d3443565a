"""DWA, dynamic weight average: more weight for the tasks whose loss fell less of late.

Liu et al., CVPR 2019, arXiv 1803.10704.

With ``r_i`` task i's mean loss over the last epoch, divided by that over the epoch before, ``w = softmax(r / T)``. The
paper's weights are K times these, for the sum of the losses; ours have sum one, for the mean, and ``reduction="sum"``
is theirs. For the first two epochs all weights are equal.

A combiner knows no epochs: ``window`` counts steps, and a trainer that wants the paper's method passes its steps per
epoch. 25 is the window of the code of Navon et al. (arXiv 2202.01017), whose window slides, where ours, as the paper's
epoch, is a block. Each task counts the steps that it was present for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, are_finite, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.parts import Parts
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Count, Positive


class DWA(LossCombiner):
    """Combination with the softmax of the losses' recent ratios. With one task ``d = g``.

    A task that has not been through two windows, or whose mean loss was zero in the earlier one, counts with the
    ratio 1.

    Args:
        window: steps of an epoch.
        temperature: T; the paper's is 2.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "dwa"
    departures = "Epochs are windows of steps, counted a task; mean in place of the sum."
    citation = "liu2019end"

    def __init__(self, window: Count = 25, *, temperature: Positive = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.window = window
        self.temperature = temperature
        self._windows = _TwoWindows(self.window)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights of sum one; see `LossCombiner.weights`. Then takes the losses in."""
        losses = losses.double()
        ratios = self._windows.ratios(losses, tasks)
        self._windows.add(losses, tasks, where=are_finite(losses))
        return weights_from((ratios / self.temperature).softmax(-1), losses)


class _TwoWindows(Parts):
    """Each task's mean losses over its last two complete windows of steps."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._steps, self._sums = TaskTable(), TaskTable()
        self._earlier, self._later = TaskTable(torch.nan), TaskTable(torch.nan)

    def ratios(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]``: later mean over earlier one, or 1 where there is none."""
        earlier, later = self._earlier.rows(like, tasks), self._later.rows(like, tasks)
        return torch.where(earlier.isnan() | (earlier == 0), 1.0, later / earlier)

    def add(self, losses: Tensor, tasks: TaskIds | None, where: Tensor) -> None:
        """Take one step's losses ``[K]`` in, unless the flag ``where`` is false."""
        steps = self._steps.rows(losses, tasks) + 1
        sums = self._sums.rows(losses, tasks) + losses
        full = steps >= self.window
        earlier, later = self._earlier.rows(losses, tasks), self._later.rows(losses, tasks)
        for table, rows in (
            (self._earlier, torch.where(full, later, earlier)),
            (self._later, torch.where(full, sums / self.window, later)),
            (self._sums, torch.where(full, 0.0, sums)),
            (self._steps, torch.where(full, 0.0, steps)),
        ):
            table.write(rows, tasks, where)
