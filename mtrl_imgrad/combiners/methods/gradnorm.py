"""GradNorm: loss weights that bring the norms of the weighted gradients to targets set by the tasks' training rates.

Chen et al., ICML 2018, arXiv 1711.02257.

With weights w of sum K, ``G_i = w_i |g_i|``, ``r_i`` the loss of task i beside its first one, divided by the tasks'
mean of that, and alpha >= 0:

    w <- w - optimizer's step along the gradient of  sum_i | G_i - mean(G) r_i^alpha |,  the target held constant,

then w is scaled to sum K. The gradient's entry i is ``sign(G_i - target_i) |g_i|``. ``d = sum_i w_i g_i / K`` with the
weights from before the step, as in the paper's algorithm.

The paper takes the norms at the last shared layer. Ours are those of the Jacobian that comes in: of all shared
parameters, or with ``backward(features=...)`` those at the representation, which is cheaper and nearer to the paper.

Departures from the authors' method: where the norms are taken; weights stay above 1e-3 before they are scaled; a loss
that is not above zero has no rate, it counts as 1e-8 of the first one (and where the first one is zero, as it).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.state.task_adam import adam_step
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import NonNegative, Positive

_SMALLEST_WEIGHT = 1e-3
_SMALLEST_RATIO = 1e-8


class GradNorm(GramianCombiner):
    """Weighted mean of the task gradients; weights follow norms and training rates. With one task ``d = g``.

    Nothing is solved, so the residual is zero. Weights, the first losses and the optimizer's moments are kept by task,
    so it takes one Gramian at a time. Losses are meant to be positive and to fall.

    Args:
        alpha: how strongly tasks that lag behind are pulled, >= 0; 1.5 is the paper's for NYUv2.
        learning_rate: of the weights, > 0; ours.
        optimizer: of the weights, ``"adam"`` (default; its step does not grow with the gradients) or ``"sgd"``.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "gradnorm"
    departures = "Norms of all shared parameters (or at the features) in place of the last shared layer."
    citation = "chen2018gradnorm"

    def __init__(
        self,
        alpha: NonNegative = 1.5,
        *,
        learning_rate: Positive = 0.025,
        optimizer: Literal["adam", "sgd"] = "adam",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self._weights = TaskTable(first=1.0)
        self._first_losses = TaskTable(first=torch.nan)
        if optimizer == "adam":
            self._first_moments, self._second_moments, self._steps = TaskTable(), TaskTable(), TaskTable()

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` coefficients; see `GramianCombiner.weights`. Moves the weights on.

        Extras: ``rates`` [K], r.
        """
        if losses is None:
            raise ArgumentError(f"losses must be given: {self.name} compares how fast they fall")
        if gramian.ndim != 2:
            raise ArgumentError(f"gramian must be [K, K] for {self.name}, got shape {tuple(gramian.shape)}")
        losses = losses.detach().double()
        problem = normalize(gramian)
        finite = problem.finite & torch.isfinite(losses).all()
        weights = self._weights.rows(losses, tasks)
        weights = weights * (len(weights) / weights.sum())
        rates = self._rates(losses, finite, tasks)
        norms = problem.norms * problem.scale.sqrt() * ~problem.zero
        sizes = weights * norms
        slope = (sizes - sizes.mean() * rates**self.alpha).sign() * norms
        moved = (weights - self.learning_rate * self._direction(slope, finite, tasks)).clamp_min(_SMALLEST_WEIGHT)
        self._weights.write(moved * (len(moved) / moved.sum()), tasks, finite)
        combined = problem.weights(
            weights / len(weights),
            base=weights / len(weights),
            extras={"rates": rates},
        )
        return combined.unless(~finite, Status.NON_FINITE)

    def _rates(self, losses: Tensor, finite: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]`` inverse training rates of mean 1; remembers the first losses of new tasks."""
        first = self._first_losses.rows(losses, tasks)
        first = torch.where(first.isnan(), losses, first)
        self._first_losses.write(first, tasks, finite)
        ratios = torch.where(first == 0, 1.0, losses / first).clamp_min(_SMALLEST_RATIO)
        return ratios / ratios.mean()

    def _direction(self, slope: Tensor, finite: Tensor, tasks: TaskIds | None) -> Tensor:
        """The optimizer's direction for the gradient ``[K]``."""
        if self.optimizer == "sgd":
            return slope
        steps = self._steps.rows(slope, tasks) + 1
        moments = self._first_moments.rows(slope, tasks), self._second_moments.rows(slope, tasks)
        direction, mean, square = adam_step(slope, *moments, steps)
        self._first_moments.write(mean, tasks, finite)
        self._second_moments.write(square, tasks, finite)
        self._steps.write(steps, tasks, finite)
        return direction
