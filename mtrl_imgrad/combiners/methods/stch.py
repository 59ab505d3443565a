"""STCH, smooth Tchebycheff scalarization: a smooth maximum of the losses' logarithms.

Lin et al., ICML 2024, arXiv 2402.19078.

With z_i task i's mean loss over one early epoch and ``l_i = log(L_i / z_i)`` the loss is
``K mu logsumexp(l / mu)``. So the weight of task i is ``K softmax(l / mu)_i / L_i``; ours is ``softmax(l / mu)_i /
L_i``, in the unit of the mean, and ``reduction="sum"`` is theirs. For mu near zero only the worst task counts. Before
all z are known the loss is ``sum_i log L_i``, that of SI.

The authors warm up for four epochs, and take the mean of the fifth. A combiner knows no epochs: ``window`` counts
steps, and a trainer that wants the paper's method passes its steps per epoch. Each task counts the steps that it was
present for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.positive_loss import LowerBound, PositiveLossCombiner, are_usable, weights_above
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.base_losses import BaseLosses
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Count, NonNegativeInt, Positive


class STCH(PositiveLossCombiner):
    """Gradient of a smooth maximum of the losses' logarithms. With one task ``d = g / L``.

    Args:
        window: steps of an epoch; 25 is ours, short enough for a run without epochs.
        warm_up: epochs before the one whose mean is z; 4 in the authors' code.
        mu: smoothness; 1 in the authors' code.
        lower_bound: taken from the losses, see `PositiveLossCombiner`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "stch"
    departures = "Epochs are windows of steps, counted a task; mean in place of the sum."
    citation = "lin2024smooth"

    def __init__(
        self,
        window: Count = 25,
        *,
        warm_up: NonNegativeInt = 4,
        mu: Positive = 1.0,
        lower_bound: LowerBound = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(lower_bound=lower_bound, reduction=reduction)
        self.window = window
        self.warm_up = warm_up
        self.mu = mu
        early = BaseLosses(skip=self.warm_up * self.window, window=self.window)
        self._base_losses = early

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then takes the losses in."""
        above = self.above(losses, tasks)
        base = self._base_losses.means(above, tasks)
        relative = torch.where(base.isnan().any(), 0.0, (above / base).log() / self.mu)
        self._base_losses.add(above, tasks, where=are_usable(losses, above))
        return weights_above(relative.softmax(-1) / above, losses, above)
