"""RLW, random loss weighting: new random weights at every step.

Lin et al., TMLR 2022, arXiv 2111.10603.

``w = softmax(z)`` with z standard normal, the first of the paper's distributions and the one of its code. The weights
sum to one, which is the unit of the mean: on average each is 1 / K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Seed


class RLW(LossCombiner):
    """Combination with random weights of sum one. With one task ``d = g``.

    Weights are drawn on the host from the combiner's own generator, at every step, whatever the losses are.

    Args:
        seed: of the generator; None (default): the run's, see `Combiner.set_random_seed`.
        reduction: ``"mean"`` (the authors') or ``"sum"``.
    """

    name = "rlw"
    departures = "Only the paper's standard normal distribution, not its five others."
    citation = "lin2022reasonable"

    def __init__(self, *, seed: Seed | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self._generator = self._seed_generator(seed)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`."""
        logits = torch.randn(losses.shape, generator=self._generator, dtype=torch.float64, device="cpu")
        return weights_from(logits.softmax(-1).to(losses.device, non_blocking=True), losses)
