"""RLW, random loss weighting: new random weights at every step.

Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning", TMLR 2022,
arXiv 2111.10603.

``w = softmax(z)`` with z standard normal, the first of the paper's distributions and the one of its code. The weights
sum to one, which is the unit of the mean: on average each is 1 / K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import LossCombiner, Reduction
from mtrl_imgrad.combiners.families.loss_weights import weights_from
from mtrl_imgrad.combiners.result import Weights
from mtrl_imgrad.combiners.state.tables import TaskIds

__all__ = ["RLW"]


class RLW(LossCombiner):
    """Combination with random weights of sum one. With one task ``d = g``.

    Weights are drawn on the host from the combiner's own generator, at every step, whatever the losses are.

    Args:
        seed: of the generator; None (default): the run's, see `Combiner.set_random_seed`.
        reduction: ``"mean"`` (the authors') or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "rlw"
    keeps = ("generator",)
    departures = "Only the paper's standard normal distribution, not its five others."
    paper = (
        "Baijiong Lin, Feiyang Ye, Yu Zhang and Ivor W. Tsang. Reasonable Effectiveness of Random Weighting: A Litmus "
        "Test for Multi-Task Learning. TMLR 2022. arXiv:2111.10603"
    )
    bibtex = """@article{lin2022reasonable,
  title = {Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning},
  author = {Lin, Baijiong and Ye, Feiyang and Zhang, Yu and Tsang, Ivor W.},
  journal = {Transactions on Machine Learning Research},
  year = {2022},
  eprint = {2111.10603},
  archivePrefix = {arXiv}
}"""

    def __init__(self, *, seed: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self._generator = self._seeded(seed)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`."""
        logits = torch.randn(losses.shape, generator=self._generator, dtype=torch.float64)
        return weights_from(logits.softmax(-1).to(losses.device, non_blocking=True), losses)
