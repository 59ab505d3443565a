"""Linear scalarization: the (weighted) mean of the task gradients; every method's yardstick.

``d = sum_i t_i g_i / K`` with task weights t, 1 for all by default, so that d is exactly the mean. Published vision
codes minimise the *sum* of the losses instead: ``reduction="sum"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import GramianCombiner, Reduction, Status, Weights
from mtrl_imgrad.combiners.normalised import normalise
from mtrl_imgrad.errors import ArgumentError

__all__ = ["LinearScalarization"]


class LinearScalarization(GramianCombiner):
    """Mean of the task gradients, or a weighted mean.

    Args:
        task_weights: K finite non-negative numbers t, not all zero. They are scaled to mean 1, so that the
            size of the step does not depend on their scale. None weighs all tasks alike.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if a weight is negative or not finite, or all are zero.
    """

    name = "linear_scalarization"
    paper: ClassVar[str] = "Folklore; also called equal weighting (EW) or unitary scalarization."

    def __init__(self, task_weights: Sequence[float] | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if task_weights is not None:
            task_weights = tuple(float(weight) for weight in task_weights)
            if not all(math.isfinite(t) and t >= 0 for t in task_weights) or sum(task_weights) <= 0:
                raise ArgumentError(f"task_weights must be finite, non-negative and not all zero, got {task_weights}")
        self.task_weights = task_weights

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Weights:
        """``[..., K]`` weights ``t / K``; see `GramianCombiner.weights`.

        Raises:
            ArgumentError: if there are not as many task weights as tasks.
        """
        problem = normalise(gramian)
        values = torch.full_like(problem.norms, 1 / problem.num_tasks)
        if self.task_weights is not None:
            if len(self.task_weights) != problem.num_tasks:
                raise ArgumentError(
                    f"task_weights must hold one number for each of {problem.num_tasks} tasks, "
                    f"got {len(self.task_weights)}"
                )
            total = sum(self.task_weights)
            values = torch.stack([torch.full_like(values[..., 0], weight / total) for weight in self.task_weights], -1)
        residual = torch.zeros_like(values[..., 0])
        status = torch.full_like(residual, int(Status.SOLVED), dtype=torch.int64)
        return problem.weights(values, base=values, residual=residual, status_code=status)
