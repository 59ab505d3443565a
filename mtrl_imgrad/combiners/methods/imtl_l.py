"""IMTL-L, the loss balance of impartial multi-task learning: learned scales that bring every loss to one.

Liu et al., ICLR 2021.

The loss is ``sum_i e^(s_i) L_i - s_i``, which s, too, descends. So the weight of task i is ``e^(s_i)``; ours is that
over K, in the unit of the mean, and ``reduction="sum"`` is theirs. For constant losses ``e^(s) L`` tends to 1. Where a
loss stays below zero there is no such point: s grows for ever.

The s take Adam's steps. Their rate is not in our sources; 0.025 is that of the learned weights in the code of Navon et
al. (arXiv 2202.01017).
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, are_finite, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.combiners.weights import Weights


class IMTLL(LossCombiner):
    """Combination with learned scales of the losses. With one task ``d = e^s g``.

    Args:
        learning_rate: of the s, see the module.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "imtl_l"
    citation = "liu2021towards"
    departures = "The combiner steps the scales itself, by Adam at a rate that is ours; mean in place of the sum."

    def __init__(self, learning_rate: float = 0.025, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.learning_rate = learning_rate
        self._log_scales = TaskAdam(0.0, learning_rate)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights ``e^(s_i) / K``; see `LossCombiner.weights`. Then moves the s."""
        losses = losses.double()
        scales = self._log_scales.numbers(losses, tasks).exp()
        self._log_scales.step(scales * losses - 1, tasks, where=are_finite(losses))
        return weights_from(scales / losses.shape[-1], losses)
