"""Linear scalarization: the (weighted) mean of the task gradients; every method's yardstick.

Folklore, also called equal weighting (EW) or unitary scalarization; see Kurin et al., NeurIPS 2022, arXiv 2201.04122.

``d = sum_i t_i g_i / K`` with task weights t, 1 for all by default, so that d is exactly the mean. Published vision
codes minimise the *sum* of the losses instead: ``reduction="sum"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.arguments import check_numbers
from mtrl_imgrad.combiners.base import Reduction
from mtrl_imgrad.combiners.checks import Jacobian
from mtrl_imgrad.combiners.families.loss import LossCombiner, weights_from
from mtrl_imgrad.combiners.result import Combination, Weights
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.errors import ArgumentError

__all__ = ["LinearScalarization"]


class LinearScalarization(LossCombiner):
    """Mean of the task gradients, or a weighted mean.

    Args:
        task_weights: K finite positive numbers t. They are scaled to mean 1, so that the
            size of the step does not depend on their scale. None weighs all tasks alike.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if a weight is not positive or not finite.
    """

    name = "linear_scalarization"
    by_columns = True
    per_task = ("task_weights",)
    departures = "Mean in place of the sum."
    citation = "kurin2022defense"

    def __init__(self, task_weights: Sequence[float] | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if task_weights is not None:
            task_weights = check_numbers("task_weights", task_weights, 0, closed=False)
        self.task_weights = task_weights

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights ``t / K``; of the losses only their number matters, and that they are finite.

        Raises:
            ArgumentError: if there is no task weight for a task.
        """
        num_tasks = losses.shape[-1]
        if self.task_weights is None:
            shares = [1.0] * num_tasks
        elif tasks is None and len(self.task_weights) != num_tasks:
            raise ArgumentError(
                f"task_weights must hold one number for each of {num_tasks} tasks, got {len(self.task_weights)}"
            )
        elif tasks is not None and max(tasks) >= len(self.task_weights):
            raise ArgumentError(f"task_weights must hold a number for task {max(tasks)}, got {len(self.task_weights)}")
        else:
            shares = [self.task_weights[task] for task in (range(num_tasks) if tasks is None else tasks)]
        total = sum(shares)
        ones = torch.ones_like(losses[..., 0], dtype=torch.float64)
        return weights_from(torch.stack([ones * (share / total) for share in shares], -1), losses)

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`; the losses may be left out."""
        if losses is None:
            first = jacobian if isinstance(jacobian, Tensor) else jacobian[0]
            losses = torch.zeros(first.shape[0], device=first.device)
        return super().combine(jacobian, losses, tasks)
