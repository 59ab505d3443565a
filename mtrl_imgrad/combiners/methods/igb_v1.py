"""IGBv1, improvable gap balancing: more weight for the tasks that have more left to improve.

Dai et al., UAI 2023, arXiv 2307.15429.

A task's base loss b_i is its mean loss over the second epoch. From then on ``w = softmax(L / b)``, a larger part of the
base loss being a larger gap. The authors' code minimises ``sum_i K w_i log L_i``, so the weight of task i is
``K w_i / L_i``; ours is ``w_i / L_i``, in the unit of the mean, and ``reduction="sum"`` is theirs. Before all base
losses are known, w is 1 / K.

A combiner knows no epochs: ``window`` counts steps, and a trainer that wants the paper's method passes its steps per
epoch. Each task counts the steps that it was present for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.positive_loss import LowerBound, PositiveLossCombiner, are_usable, weights_above
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.base_losses import BaseLosses
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Count


class IGBv1(PositiveLossCombiner):
    """Gradient of the logarithms of the losses, weighed by their gaps. With one task ``d = g / L``.

    Args:
        window: steps of an epoch; 25 is ours, short enough for a run without epochs.
        lower_bound: taken from the losses, see `PositiveLossCombiner`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "igb_v1"
    departures = "Epochs are windows of steps, counted a task; mean in place of the sum."
    citation = "dai2023improvable"

    def __init__(self, window: Count = 25, *, lower_bound: LowerBound = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(lower_bound=lower_bound, reduction=reduction)
        self.window = window
        self._base_losses = BaseLosses(skip=self.window, window=self.window)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then takes the losses in."""
        above = self.above(losses, tasks)
        base = self._base_losses.means(above, tasks)
        gaps = torch.where(base.isnan().any(), 0.0, above / base)
        self._base_losses.add(above, tasks, where=are_usable(losses, above))
        return weights_above(gaps.softmax(-1) / above, losses, above)
