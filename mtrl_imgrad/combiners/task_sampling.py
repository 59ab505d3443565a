"""A step that looks at a few groups of tasks in place of all K, which saves backward passes.

Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, arXiv 2110.14048 (CAGrad-Fast): of
n rows, n - 1 are tasks drawn at random, the last is the mean of all others. Weighted by their number of tasks, the rows
have the mean gradient of all tasks as their mean, whatever was drawn, and so the method's problem is posed on n rows.

Their code leaves one task out of both parts at every step; here every task is in exactly one row.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import Combination, GramianCombiner, Reduction, Status, TaskIds, Weights
from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_of_blocks
from mtrl_imgrad.combiners.random_order import check_seed
from mtrl_imgrad.errors import ArgumentError

__all__ = ["TaskSampler"]


class TaskSampler(GramianCombiner):
    """A Gramian method that can be posed on groups of tasks.

    Args:
        tasks_per_step: rows n of a step, at least 2; None, or a number of at least K, takes every task on its own.
        seed: of the generator that draws.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    keeps = ("generator",)

    def __init__(
        self,
        *,
        tasks_per_step: int | None = None,
        seed: int = 0,
        update_every: int = 1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        is_count = isinstance(tasks_per_step, int) and not isinstance(tasks_per_step, bool) and tasks_per_step >= 2
        if tasks_per_step is not None and not is_count:
            raise ArgumentError(f"tasks_per_step must be an integer >= 2 or None, got {tasks_per_step!r}")
        self.tasks_per_step = tasks_per_step
        self.seed = check_seed(seed)
        if tasks_per_step is not None:
            self._generator = self._keep("generator", torch.Generator().manual_seed(self.seed))

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
        if self.tasks_per_step is None or self.tasks_per_step >= num_tasks:
            return None
        singles = self.tasks_per_step - 1
        order = torch.randperm(num_tasks, generator=self._generator)
        groups = torch.zeros(self.tasks_per_step, num_tasks, dtype=torch.float64)
        groups[torch.arange(singles), order[:singles]] = 1.0
        groups[-1, order[singles:]] = 1 / (num_tasks - singles)
        return groups

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """See `Combiner.combine_groups`."""
        gramian = gramian_of_blocks(jacobian)
        groups = groups.to(gramian.device, non_blocking=True)
        rows = self.solve_rows(gramian, _shares(groups))
        factor = groups.shape[-1] if self.reduction == "sum" else 1
        found = self._of_tasks(dataclasses.replace(rows, values=rows.values * factor), groups)
        if self._frozen is not None:
            self._frozen.keep(found, tasks)
        finite = torch.isfinite(gramian).all()
        return Combination(
            gradient=combine_blocks(rows.values * factor, jacobian),
            weights=found.values,
            residual=found.residual,
            status_code=torch.where(finite, found.status_code, int(Status.NON_FINITE)),
            extras=found.extras,
        )

    def _of_tasks(self, found: Weights, groups: Tensor) -> Weights:
        """The tasks' weights, from those of the groups; what is reported of a group is left out."""
        extras = {name: value for name, value in found.extras.items() if value.shape == found.residual.shape}
        return dataclasses.replace(found, values=found.values @ groups, extras=extras)


def _shares(groups: Tensor) -> Tensor:
    """``[n]``: the share of the tasks that each group holds."""
    return (groups > 0).double().mean(-1)
