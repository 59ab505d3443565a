"""BiLB4MTL, also LDC-MTL: weights that are learned to keep the tasks' losses close to each other.

Xiao, Dong, Zou, Ji, "Scalable Bilevel Loss Balancing for Multi-Task Learning", arXiv 2502.08585 (later versions: "LDC-
MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control").

Upper level: learned numbers x minimise the discrepancy ``f = sum_i |t_i L_i - t_(i+1) L_(i+1)|`` of neighbouring tasks.
Lower level: the network minimises ``g = sum_i w_i(x) L_i``. The authors' code solves both in one loop: network and x
descend ``(lam f + g) / sum_i w_i``, the divisor taken as a constant. So with ``q_i = +-1`` the slope of f in ``t_i
L_i`` (the sum of both neighbours' signs, 0 where they are equal) the weight of task i is

    (w_i + lam t_i q_i) / sum_j w_j,

w sums to the divisor, so this is in the unit of the mean. Losses of tasks at the top of a gap are pushed, those at its
foot are held back, and a weight can be negative if lam exceeds 1/2.

Departures: x are free numbers, one a task, as in the authors' code for CelebA, where their codes for scenes compute
them from the network's pooled features, which a combiner does not see. The paper's term ``-g(x, z)`` with an inner
iterate z is left out, as in their code. The rate of x stays what it is, where their code for CelebA lowers it every
third epoch.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mtrl_imgrad.combiners.arguments import check_choice, check_number
from mtrl_imgrad.combiners.base import LossCombiner, Reduction
from mtrl_imgrad.combiners.loss_weights import are_finite
from mtrl_imgrad.combiners.memory.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.memory.task_adam import TaskAdam
from mtrl_imgrad.combiners.outcome import Weights
from mtrl_imgrad.combiners.positive import weights_above

__all__ = ["BiLB4MTL"]

Router = Literal["sigmoid", "softmax"]
Gap = Literal["weighted", "plain"]
Scale = Literal["none", "initial"]
INITIAL = 1.0
"""Where the free numbers start in the authors' code for CelebA."""


class BiLB4MTL(LossCombiner):
    """Combination with learned weights that hold neighbouring losses together. With one task ``d = g``.

    Neighbours are tasks next to each other in the step, so the order of the tasks matters.

    Args:
        lam: weight of the discrepancy: 0.01 for CelebA, 0.05 for NYUv2 and QM9, 0.1 for CityScapes (authors' code).
        learning_rate: of x by Adam: 1e-3 for CelebA (authors' code).
        router: how x gives w: ``"sigmoid"``, as for CelebA, or ``"softmax"``, as for the scenes.
        gap: whether f compares the weighted losses (``"weighted"``, t = w, as for NYUv2) or the losses themselves
            (``"plain"``, t = 1, as for CityScapes; f then does not reach x).
        scale: ``"initial"`` divides each loss by the first one of its task, as for NYUv2; that must be positive.
        reduction: ``"mean"`` (the authors') or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "bilb4mtl"
    keeps = ("numbers", "initial")
    departures = "Free numbers in place of a router on the network's features; their rate is not lowered."
    paper = (
        "Peiyao Xiao, Chaosheng Dong, Shaofeng Zou and Kaiyi Ji. Scalable Bilevel Loss Balancing for Multi-Task "
        "Learning. 2025. arXiv:2502.08585"
    )
    bibtex = """@article{xiao2025scalable,
  title = {Scalable Bilevel Loss Balancing for Multi-Task Learning},
  author = {Xiao, Peiyao and Dong, Chaosheng and Zou, Shaofeng and Ji, Kaiyi},
  year = {2025},
  journal = {arXiv:2502.08585},
  eprint = {2502.08585},
  archivePrefix = {arXiv}
}"""

    def __init__(
        self,
        lam: float = 0.01,
        learning_rate: float = 1e-3,
        *,
        router: Router = "sigmoid",
        gap: Gap = "weighted",
        scale: Scale = "none",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        for name, value, known in (("router", router, Router), ("gap", gap, Gap), ("scale", scale, Scale)):
            check_choice(name, value, get_args(known))
        self.lam = check_number("lam", lam, 0)
        self.learning_rate = learning_rate
        self.router = router
        self.gap = gap
        self.scale = scale
        self._numbers = self._keep("numbers", TaskAdam(INITIAL, learning_rate))
        self._initial = self._keep("initial", TaskTable(torch.nan))

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then moves x."""
        losses = losses.double()
        first = self._first_losses(losses, tasks)
        usable = are_finite(losses) & (first > 0).all()
        scaled = losses / first
        numbers = self._numbers.numbers(losses, tasks)
        w = numbers.softmax(-1) if self.router == "softmax" else numbers.sigmoid()
        t = w if self.gap == "weighted" else torch.ones_like(w)
        slopes = _slopes(t * scaled)
        reached = slopes if self.gap == "weighted" else torch.zeros_like(slopes)
        gradient = self._through_router(w, scaled * (1 + self.lam * reached) / w.sum())
        self._numbers.step(gradient, tasks, where=usable)
        return weights_above((w + self.lam * t * slopes) / (w.sum() * first), losses, first)

    def _first_losses(self, losses: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]``: each task's first loss, or ones where losses are not scaled."""
        if self.scale == "none":
            return torch.ones_like(losses)
        known = self._initial.rows(losses, tasks)
        self._initial.write(torch.where(known.isnan(), losses, known), tasks, where=are_finite(losses))
        return self._initial.rows(losses, tasks)

    def _through_router(self, w: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of x from that of w."""
        if self.router == "softmax":
            return w * (gradient - (w * gradient).sum())
        return w * (1 - w) * gradient


def _slopes(values: Tensor) -> Tensor:
    """Derivative of the sum of the distances of neighbouring ``values`` [K]."""
    signs = (values[:-1] - values[1:]).sign()
    return torch.nn.functional.pad(signs, (0, 1)) - torch.nn.functional.pad(signs, (1, 0))
