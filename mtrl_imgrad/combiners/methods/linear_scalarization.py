"""Linear scalarization: the (weighted) mean of the task gradients; every method's yardstick.

Folklore, also called equal weighting (EW) or unitary scalarization; see Kurin et al., NeurIPS 2022, arXiv 2201.04122.

``d = sum_i t_i g_i / K`` with task weights t, 1 for all by default, so that d is exactly the mean. Published vision
codes minimise the *sum* of the losses instead: ``reduction="sum"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian
from mtrl_imgrad.combiners.families.loss import LossCombiner, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds, values_of_tasks
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Positive


class LinearScalarization(LossCombiner):
    """Mean of the task gradients, or a weighted mean.

    Args:
        task_weights: K finite positive numbers t. They are scaled to mean 1, so that the
            size of the step does not depend on their scale. None weighs all tasks alike.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "linear_scalarization"
    by_columns = True
    per_task = ("task_weights",)
    departures = "Mean in place of the sum."
    citation = "kurin2022defense"

    def __init__(
        self, task_weights: Annotated[Sequence[Positive], MinLen(1)] | None = None, *, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.task_weights = None if task_weights is None else tuple(map(float, task_weights))

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights ``t / K``; of the losses only their number matters, and that they are finite."""
        shares = [1.0] * losses.shape[-1]
        if self.task_weights is not None:
            shares = values_of_tasks("task_weights", self.task_weights, losses.shape[-1], tasks)
        total = sum(shares)
        ones = torch.ones_like(losses[..., 0], dtype=torch.float64)
        return weights_from(torch.stack([ones * (share / total) for share in shares], -1), losses)

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`; the losses may be left out."""
        if losses is None:
            first = jacobian if isinstance(jacobian, Tensor) else jacobian[0]
            losses = torch.zeros(first.shape[0], device=first.device)
        return super().combine(jacobian, losses, tasks)
