"""IMTL, impartial multi-task learning: IMTL-L's scales on the losses, IMTL-G on the gradients of the scaled losses.

Liu et al., ICLR 2021.

With the scales ``e^s`` of IMTL-L the scaled losses have the Gramian ``diag(e^s) M diag(e^s)``; IMTL-G's weights for it,
v with sum 1, give the plain gradients the weights ``e^(s_i) v_i``. The s descend ``sum_i e^(s_i) L_i - s_i``, not
weighed by v. IMTL-G's direction does not depend on the scales of the gradients: the learned scales only change the
length of the update.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.loss import are_finite
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.methods.imtl_g import IMTLG
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError


class IMTL(GramianCombiner):
    """Equal projections on the unit gradients, of a length that learned scales of the losses set.

    With one task ``d = e^s g``. It keeps a scale a task, so it takes one Gramian at a time. Residual and status are
    those of IMTL-G.

    Args:
        learning_rate: of the s, see `mtrl_imgrad.combiners.methods.imtl_l`.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "imtl"
    citation = "liu2021towards"
    departures = "Those of IMTL-G; the combiner steps the scales itself, by Adam at a rate that is ours."

    def __init__(self, learning_rate: float = 0.025, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.learning_rate = learning_rate
        self._log_scales = TaskAdam(0.0, learning_rate)
        self._impartial = IMTLG()

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` coefficients ``e^(s_i) v_i``; see `GramianCombiner.weights`. Then moves the s."""
        if losses is None:
            raise ArgumentError(f"losses must be given: {self.name} scales them")
        if gramian.ndim != 2 or losses.shape != gramian.shape[:1]:
            raise ArgumentError(
                f"gramian must be [K, K] and losses [K] for {self.name}, got shapes {tuple(gramian.shape)} and "
                f"{tuple(losses.shape)}"
            )
        losses = losses.detach().double()
        scales = self._log_scales.numbers(losses, tasks).exp()
        impartial = self._impartial.solve(gramian.double() * scales[:, None] * scales, None, tasks)
        finite = are_finite(losses)
        usable = finite & torch.isfinite(gramian).all()
        self._log_scales.step(scales * losses - 1, tasks, where=usable)
        return dataclasses.replace(impartial, values=impartial.values * scales).unless(~finite, Status.NON_FINITE)
