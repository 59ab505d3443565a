"""Methods that may combine a few groups of tasks in place of all K tasks, which saves backward passes.

CAGrad-Fast (Liu et al., NeurIPS 2021, arXiv 2110.14048): of n rows, n - 1 are tasks drawn at random, the last is the
mean of all others. Weighted by their number of tasks, the rows have the mean gradient of all tasks as their mean,
whatever was drawn, and so the method's problem is posed on n rows.

Their code leaves one task out of both parts at every step; here every task is in exactly one row.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.gramian import gramian_of_blocks
from mtrl_imgrad.combiners.result import Combination, linear_combination
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights

TasksPerStep = Annotated[int, Ge(2)]


class TaskSampler(GramianCombiner):
    """A Gramian method that can be posed on groups of tasks. It takes every task on its own until told otherwise."""

    by_columns = True
    _rows: int | None = None

    def _sample_tasks(self, rows: int | None, seed: int | None) -> None:
        """Look at ``rows`` groups of tasks a step; with None, or with at least K, at every task on its own."""
        generator = self._seed_generator(seed)
        if rows is not None:
            self._rows, self._generator = rows, generator

    @abstractmethod
    def solve_rows(self, gramian: Tensor, mean: Tensor | None) -> Weights:
        """`solve` for rows that need not count alike.

        Args:
            gramian: ``[..., n, n]``.
            mean: ``[n]`` weights of the mean gradient, or None for ``1 / n`` each.
        """

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`."""
        groups = self.draw_groups(gramian.shape[-1])
        if groups is None:
            return self.solve_rows(gramian, None)
        on_device = groups.to(gramian.device, non_blocking=True)
        gramian = gramian.double()
        return self._of_tasks(self.solve_rows(on_device @ gramian @ on_device.mT, _shares(on_device)), on_device)

    def draw_groups(self, num_tasks: int) -> Tensor | None:
        """See `Combiner.draw_groups`."""
        if self._rows is None or self._rows >= num_tasks:
            return None
        singles = self._rows - 1
        order = torch.randperm(num_tasks, generator=self._generator, device="cpu")
        groups = torch.zeros(self._rows, num_tasks, dtype=torch.float64, device="cpu")
        groups[torch.arange(singles, device="cpu"), order[:singles]] = 1.0
        groups[-1, order[singles:]] = 1 / (num_tasks - singles)
        return groups

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """See `Combiner.combine_groups`."""
        gramian = gramian_of_blocks(jacobian)
        groups = groups.to(gramian.device, non_blocking=True)
        rows = self.solve_rows(gramian, _shares(groups))
        if self.reduction == "sum":
            rows = dataclasses.replace(rows, values=rows.values * groups.shape[-1])
        weights = self._of_tasks(rows, groups)
        if self._frozen is not None:
            self._frozen.keep(weights, tasks)
        combined = linear_combination(jacobian, jacobian, gramian, rows)
        return dataclasses.replace(combined, weights=weights.values, gramian=None, extras=weights.extras)

    def _of_tasks(self, weights: Weights, groups: Tensor) -> Weights:
        """The tasks' weights, from those of the groups; what is reported of a group is left out."""
        extras = {name: value for name, value in weights.extras.items() if value.shape == weights.residual.shape}
        return dataclasses.replace(weights, values=weights.values @ groups, extras=extras)


def _shares(groups: Tensor) -> Tensor:
    """``[n]``: the share of the tasks that each group holds."""
    return (groups > 0).double().mean(-1)
