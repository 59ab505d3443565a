"""MoCo, multi-objective gradient correction: task gradients tracked over the steps, and weights that follow them.

Fernando et al., ICLR 2023, arXiv 2210.12624.

A stochastic gradient that is plugged into MGDA gives a biased direction. MoCo keeps a running average Y [K, P] of the
task gradients, and moves the weights by one projected gradient step on ``|Y'w|^2 + rho |w|^2``:

    Y <- Y - beta_t (Y - G),    w <- projection of  w - 2 gamma_t (Y Y' + rho I) w  onto the simplex,    d = Y'w,

with ``beta_t = beta / t^sigma_beta`` and ``gamma_t = gamma / t^sigma_gamma``. Y starts at zero, w at 1 / K. The theorem
counts steps in t, the authors' code epochs: a trainer that wants the latter passes its steps per epoch as ``window``.

Departures from the authors' code: Y and w are not restarted at each step of the first epoch; the gradient of w has
the factor 2 of the formula, which their code for NYUv2 and CityScapes leaves out (its gamma is twice ours); w is
projected, where their code for CityScapes takes a softmax; each task counts its own steps; the combination is not
multiplied by K (theirs is: ``reduction="sum"``).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner, combination, row_norms, wide
from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_of_blocks, scale_rows
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.block_table import BlockTable
from mtrl_imgrad.combiners.state.simplex_table import SimplexTable, project_simplex
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, NonNegative

Normalization = Literal["none", "loss"]


class MoCo(MatrixCombiner):
    """Tracked task gradients, weighted by one step towards their min-norm point. With one task ``d = Y``.

    It keeps a copy of the Jacobian (K x P numbers), so every step must bring the same parameters. The weights' step is
    not invariant: gradients of norm 10 move them a hundred times as far as gradients of norm 1.

    Args:
        beta: rate at which Y follows the gradients at the first step, in (0, 1].
        gamma: rate of the weights at the first step, >= 0.
        window: steps after which t grows by one.
        sigma_beta: exponent of beta's decay, >= 0.
        sigma_gamma: exponent of gamma's decay, >= 0.
        rho: weight of ``|w|^2``, >= 0; draws the weights to equality.
        normalization: ``"loss"`` scales each gradient to the length of its loss first (of its size, where it is
            below zero), an option of the authors' code; it needs the losses.
        reduction: ``"mean"`` (weights of sum 1) or ``"sum"``.
    """

    name = "moco"
    departures = "Nothing is started anew in the first epoch; the weights' gradient has its factor 2."
    citation = "fernando2023mitigating"

    def __init__(
        self,
        beta: Annotated[float, Interval(gt=0, le=1)] = 0.5,
        gamma: NonNegative = 0.1,
        *,
        window: Count = 1,
        sigma_beta: NonNegative = 0.5,
        sigma_gamma: NonNegative = 0.5,
        rho: NonNegative = 0.0,
        normalization: Normalization = "none",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta
        self.gamma = gamma
        self.window = window
        self.sigma_beta = sigma_beta
        self.sigma_gamma = sigma_gamma
        self.rho = rho
        self.normalization = normalization
        self._tracked = BlockTable()
        self._weights = SimplexTable()
        self._steps = TaskTable()

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`. Extras: ``simplex_weights`` [K], w.

        Raises:
            ArgumentError: if the losses are asked for and missing, or the parameters are not those of the last step.
        """
        blocks = [wide(block) for block in blocks_of(jacobian)]
        norms = row_norms(blocks)
        finite = torch.isfinite(norms).all()
        if self.normalization == "loss":
            if losses is None:
                raise ArgumentError("losses must be given: normalization='loss' scales the gradients to them")
            lengths = losses.detach().double().abs()
            finite = finite & torch.isfinite(lengths).all()
            factors = torch.where(norms > 0, lengths / norms, 0.0)
            blocks = [scale_rows(block, factors) for block in blocks]
        tracked, weights = self._step(blocks, norms, finite, tasks)
        values = weights * len(weights) if self.reduction == "sum" else weights
        return combination(jacobian, combine_blocks(values, tracked), finite, extras={"simplex_weights": weights})

    def _step(
        self, blocks: list[Tensor], like: Tensor, finite: Tensor, tasks: TaskIds | None
    ) -> tuple[list[Tensor], Tensor]:
        """Move Y and w on, where ``finite``; return both."""
        steps = self._steps.rows(like, tasks) + 1
        times = ((steps - 1) / self.window).floor() + 1
        rates = self.beta / times**self.sigma_beta
        rate = self.gamma / times.amax() ** self.sigma_gamma
        before = self._tracked.rows(blocks, tasks)
        tracked = [old + scale_rows(new - old, rates) for old, new in zip(before, blocks, strict=True)]
        weights = self._weights.shares(like, tasks)
        slope = 2 * (gramian_of_blocks(tracked) @ weights + self.rho * weights)
        weights = project_simplex(weights - rate * slope)
        self._steps.write(steps, tasks, finite)
        self._tracked.write(tracked, tasks, finite)
        self._weights.write_shares(weights, tasks, finite)
        return tracked, weights
