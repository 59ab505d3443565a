"""FAMO, fast adaptive multitask optimization: all logarithms of the losses shall fall at the same rate.

Liu et al., NeurIPS 2023, arXiv 2306.03792.

With logits x, ``z = softmax(x)``, and D the losses less their lower bound, the weights are ``(z_i / D_i) / c`` with
``c = sum_j z_j / D_j``. They sum to one, which is the unit of the mean. After the optimizer's step the losses of the
same batch are looked at again: with ``delta_i = log D_i(before) - log D_i(after)`` the logits take a step of Adam along
``z_i (delta_i - sum_j z_j delta_j)``, so that a task that improved more than the others loses weight.

The losses after the step come by `FAMO.after_step`. Where it is not called, the losses of the next step stand for them,
as in the authors' toy problem: fine for a full batch, noisy for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import check_losses
from mtrl_imgrad.combiners.families.loss import are_finite
from mtrl_imgrad.combiners.families.positive_loss import LowerBound, PositiveLossCombiner, are_usable, weights_above
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.replicas.agreement import mean_losses
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import NonNegative

EPSILON = 1e-8
"""What the authors' code adds to every loss less its bound."""


class FAMO(PositiveLossCombiner):
    """Combination under which the slowest relative improvement grows. With one task ``d = g``.

    Args:
        learning_rate: of the logits; 0.025 in the authors' code.
        weight_decay: of the logits, the authors' gamma: 1e-3 for CelebA, NYUv2 and QM9, 1e-2 for CityScapes and
            MT10.
        lower_bound: taken from the losses, see `PositiveLossCombiner`; the authors' toy problem has one below zero.
        reduction: ``"mean"`` (the authors') or ``"sum"``.
    """

    name = "famo"
    needs_losses_after_step = True
    departures = "Divides by c, as the paper, where the authors' code for MT10 multiplies; clips no gradient by itself."
    citation = "liu2023famo"

    def __init__(
        self,
        learning_rate: NonNegative = 0.025,
        *,
        weight_decay: NonNegative = 1e-3,
        lower_bound: LowerBound = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(lower_bound=lower_bound, reduction=reduction)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._logits = TaskAdam(0.0, learning_rate, weight_decay)
        self._before = TaskTable(torch.nan)
        """log D of the latest step's tasks, until the losses after it are known; NaN for the others."""

    def above(self, losses: Tensor, tasks: TaskIds | None) -> Tensor:
        """The losses less their bounds, and a little more; see `PositiveLossCombiner.above`."""
        return super().above(losses, tasks) + EPSILON

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights of sum one; see `LossCombiner.weights`.

        Moves the logits first if `after_step` was not called after the last step.

        Extras: ``simplex_weights`` [K], z.
        """
        above = self.above(losses, tasks)
        usable = are_usable(losses, above)
        self._move(above, tasks, usable)
        z = self._logits.numbers(above, tasks).softmax(-1)
        shares = z / above
        self._before.write(above.log(), tasks, where=usable)
        return weights_above(shares / shares.sum(-1, keepdim=True), losses, above, {"simplex_weights": z})

    def after_step(
        self,
        losses: Tensor,
        tasks: TaskIds | None = None,
        *,
        group: Any = None,
        rows: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Move the logits by what the step did to the losses of its batch; see `Combiner.after_step`.

        A loss that fell to its bound or below counts as one just above it. Losses that are not finite, and those of
        tasks that were not in the step, change nothing.
        """
        check_losses(losses, one_step=True)
        losses, tasks = mean_losses(losses.detach(), tasks, group, rows, "after_step")
        self._move(self.above(losses, tasks).clamp_min(EPSILON), tasks, are_finite(losses))

    def _move(self, above: Tensor, tasks: TaskIds | None, where: Tensor) -> None:
        """Step the logits of the tasks whose loss before is known, as if there were no others."""
        before = self._before.rows(above, tasks)
        known = ~before.isnan()
        logits = torch.where(known, self._logits.numbers(above, tasks), -torch.inf)
        z = torch.where(known.any(), logits, 0.0).softmax(-1)
        gained = torch.where(known, before - above.log(), 0.0)
        self._logits.step(z * (gained - (z * gained).sum()), tasks, where & known)
        assert self._before.values is not None, "made by rows"
        self._before.values = torch.where(where, torch.nan, self._before.values)
