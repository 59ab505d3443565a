"""DB-MTL, dual balancing: losses balanced by their logarithm, gradients by their norm.

Lin et al., 2023, arXiv 2308.12029.

The gradient of ``log(L_i + 1e-8)`` is ``g_i / (L_i + 1e-8)``. Its running average a_i is scaled to the length of the
longest one:

    a_i <- beta_t a_i + (1 - beta_t) g_i / (L_i + 1e-8),    d = sum_i a_i max_j |a_j| / (|a_i| K),

with ``beta_t = beta / t^sigma`` at step t. With beta = 0 there is nothing to keep, and d is linear in the gradients.

Departures from the authors' code: a task's first gradient is its average, where theirs starts from zero and so makes
the first steps short; a loss below zero, which has no logarithm, counts by its size, so that its gradient keeps its
sign (an actor's loss is one); the sum is divided by K (theirs is ``reduction="sum"``); no epsilon at the norms, a task
whose gradient is zero stays out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner, combination, row_norms, wide
from mtrl_imgrad.combiners.gramian import combine_blocks, scale_rows
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.block_table import BlockTable
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import NonNegative, Probability

_SMALLEST_LOSS = 1e-8
"""The authors'."""


class DBMTL(MatrixCombiner):
    """Log-loss gradients, averaged over the steps and scaled to one length. With one task ``d = a``.

    With ``beta > 0`` it keeps a copy of the Jacobian (K x P numbers), so every step must bring the same parameters.

    Args:
        beta: share of the past in the running average at the second step, in [0, 1); 0.9 is the authors'.
        sigma: exponent of its decay, >= 0; 0 (the authors' code) keeps it constant.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "db_mtl"
    departures = (
        "The first gradient starts the average; a loss below zero counts by its size; mean in place of the sum."
    )
    citation = "lin2023dual"

    def __init__(self, beta: Probability = 0.9, *, sigma: NonNegative = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = beta
        if beta == 1:
            raise ArgumentError("beta must be below 1: nothing but the first gradient would count")
        self.sigma = sigma
        if self.beta > 0:
            self._averages, self._steps = BlockTable(), TaskTable()

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`. The weights are None unless ``beta`` is 0.

        Raises:
            ArgumentError: if the losses are missing, or the parameters are not those of the last step.
        """
        if losses is None:
            raise ArgumentError(f"losses must be given: {self.name} takes the gradients of their logarithms")
        blocks = [wide(block) for block in blocks_of(jacobian)]
        norms = row_norms(blocks)
        finite = torch.isfinite(norms).all() & torch.isfinite(losses).all()
        inverse = 1 / (losses.detach().double().abs() + _SMALLEST_LOSS)
        if self.beta == 0:
            values = self._balanced(norms * inverse) * inverse
            return combination(
                jacobian, combine_blocks(values, blocks), finite, zero=(norms == 0).all(), weights=values
            )
        averages = self._average([scale_rows(block, inverse) for block in blocks], norms, finite, tasks)
        values = self._balanced(row_norms(averages))
        return combination(jacobian, combine_blocks(values, averages), finite)

    def _balanced(self, norms: Tensor) -> Tensor:
        """Factors ``[K]`` that bring all lengths to the largest one, in the unit asked for; 0 for a length of zero."""
        values = torch.where(norms > 0, norms.amax() / norms, 0.0)
        return values if self.reduction == "sum" else values / len(values)

    def _average(self, blocks: list[Tensor], like: Tensor, finite: Tensor, tasks: TaskIds | None) -> list[Tensor]:
        """The running averages with this step's gradients taken in; kept where ``finite``."""
        steps = self._steps.rows(like, tasks) + 1
        past = torch.where(steps > 1, self.beta / steps**self.sigma, 0.0)
        before = self._averages.rows(blocks, tasks)
        averages = [new + scale_rows(old - new, past) for old, new in zip(before, blocks, strict=True)]
        self._steps.write(steps, tasks, finite)
        self._averages.write(averages, tasks, finite)
        return averages
