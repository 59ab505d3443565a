"""UW, uncertainty weighting: a learned variance a task, by which its loss is divided.

Kendall et al., CVPR 2018, arXiv 1705.07115.

With ``s_i = log sigma_i^2`` the loss is ``sum_i e^(-s_i) L_i / 2 + s_i / 2``, the paper's form for regression, which
its ports use for every task. So the weight of task i is ``e^(-s_i) / 2``; ours is that over K, in the unit of the
mean, and ``reduction="sum"`` is theirs. The s descend the same loss by Adam, at the rate of Navon et al.'s code
(arXiv 2202.01017), 0.025, which also starts them at 0 (the ports of Liu et al.'s CAGrad and MTAN: -0.5, with the rate
of the network).

For constant losses s tends to ``log L``, so UW follows SI with a lag. Where a loss stays below zero there is no such
point: s falls and the weight grows for ever.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, are_finite, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Finite


class UW(LossCombiner):
    """Combination with the inverse of learned variances. With one task ``d = e^(-s) g / 2``.

    Args:
        learning_rate: of the s, see the module.
        initial: where every s starts.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "uw"
    departures = "The combiner steps the log variances itself, without weight decay; mean in place of the sum."
    citation = "kendall2018multi"

    def __init__(self, learning_rate: float = 0.025, *, initial: Finite = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.learning_rate = learning_rate
        self.initial = initial
        self._log_variances = TaskAdam(self.initial, learning_rate)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights ``e^(-s_i) / 2K``; see `LossCombiner.weights`. Then moves the s."""
        losses = losses.double()
        halves = (-self._log_variances.numbers(losses, tasks)).exp() / 2
        self._log_variances.step(0.5 - halves * losses, tasks, where=are_finite(losses))
        return weights_from(halves / losses.shape[-1], losses)
