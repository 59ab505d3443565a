"""BiLB4MTL, also LDC-MTL: weights that are learned to keep the tasks' losses close to each other.

Xiao et al., 2025, arXiv 2502.08585 (later versions: "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
Discrepancy Control").

Upper level: learned numbers x minimise the discrepancy ``f = sum_i |t_i l_i - t_(i+1) l_(i+1)|`` of neighbouring tasks.
Lower level: the network minimises ``g = sum_i w_i(x) l_i``. l are the losses L, scaled. The authors' code solves both
in one loop: network and x descend

    g / S + lam f,    S = sum_i w_i.

So with q_i the slope of f in ``t_i l_i`` (the sum of its signs, 0 where neighbours are equal) the weight of task i is
``(w_i / S + lam t_i q_i) dl_i/dL_i``. The discrepancy is not divided by S: with CelebA's 40 sigmoids of 1, S = 29.2.
Losses of tasks at the top of a gap are pushed, those at its foot are held back, and a weight can be negative.

The authors' code has a form for each data set, all of which the arguments reach:

    CelebA       the defaults                                           lam 0.01, rate 1e-3, times 0.3 each third epoch
    NYUv2        router="clamped_softmax", scale="initial"              lam 0.05, rate 8e-5 (of router and network)
    CityScapes   router="clamped_softmax", gap="plain"                  lam 0.1,  rate 3e-4 (of router and network)
    QM9          router="relu_sigmoid", scale="log_initial"             lam 0.05

S is a constant in the gradient of x for the sigmoids, as in CelebA's and QM9's code, and not for the softmaxes, as in
NYUv2's.

Departures: x are free numbers, one a task, as for CelebA and QM9; the codes for scenes compute them from the network's
pooled features, which a combiner does not see. x starts at 1, where QM9's code draws from [0.2, 1]. L0 is each task's
first loss of the run; QM9's code takes it again each epoch. The paper's term ``-g(x, z)`` with an inner iterate z is
left out, as in their code. The rate of x is not lowered. ``router="softmax"`` without the clamp is ours.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, are_finite
from mtrl_imgrad.combiners.families.positive_loss import weights_above
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import NonNegative

Router = Literal["sigmoid", "relu_sigmoid", "softmax", "clamped_softmax"]
Gap = Literal["weighted", "plain"]
Scale = Literal["none", "initial", "log_initial"]
CLAMP = (0.2, 0.8)
"""Bounds of a weight in the authors' code for the scenes."""
INITIAL = 1.0
"""Where the free numbers start in the authors' code for CelebA."""


class BiLB4MTL(LossCombiner):
    """Combination with learned weights that hold neighbouring losses together. With one task ``d = g``.

    Neighbours are tasks next to each other in the step, so the order of the tasks matters.

    Args:
        lam: weight of the discrepancy: 0.01 for CelebA, 0.05 for NYUv2 and QM9, 0.1 for CityScapes (authors' code).
        learning_rate: of x by Adam: 1e-3 for CelebA (authors' code).
        router: w from x: ``"sigmoid"`` (CelebA), ``"relu_sigmoid"`` (QM9; at least 1/2), ``"clamped_softmax"`` (the
            scenes; clamped to [0.2, 0.8], for at most four tasks) or ``"softmax"``.
        gap: whether f compares the weighted losses (``"weighted"``, t = w) or the losses themselves (``"plain"``,
            t = 1, as for CityScapes; f then does not reach x).
        scale: l from L and each task's first loss L0, which must be positive: ``"initial"``, ``L / (L0 / min L0)`` with
            the least L0 of all tasks (NYUv2); ``"log_initial"``, ``log(L / L0)`` (QM9); ``"none"``.
        reduction: ``"mean"`` (the authors') or ``"sum"``.
    """

    name = "bilb4mtl"
    departures = (
        "Free numbers that start at 1 in place of a router on the network's features; their rate is not lowered; first "
        "losses are the run's."
    )
    citation = "xiao2025scalable"

    def __init__(
        self,
        lam: NonNegative = 0.01,
        learning_rate: float = 1e-3,
        *,
        router: Router = "sigmoid",
        gap: Gap = "weighted",
        scale: Scale = "none",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.lam = lam
        self.learning_rate = learning_rate
        self.router = router
        self.gap = gap
        self.scale = scale
        self._numbers = TaskAdam(INITIAL, learning_rate)
        self._initial = TaskTable(torch.nan)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then moves x."""
        losses = losses.double()
        self._check_clamp(len(losses))
        first = self._first_losses(losses, tasks)
        scaled, slope_of_scale, positive = self._scale_losses(losses, first)
        usable = are_finite(losses) & (positive > 0).all()
        x = self._numbers.numbers(losses, tasks)
        w = self._route(x)
        t = w if self.gap == "weighted" else torch.ones_like(w)
        slopes = _slopes(t * scaled)
        self._numbers.step(self._through_router(x, w, self._slope_of_weights(w, scaled, slopes)), tasks, where=usable)
        return weights_above((w / w.sum() + self.lam * t * slopes) * slope_of_scale, losses, positive)

    def _check_clamp(self, num_tasks: int) -> None:
        if self.router == "clamped_softmax" and num_tasks * CLAMP[0] >= 1:
            raise ArgumentError(
                f"router='clamped_softmax' keeps weights above {CLAMP[0]}, which leaves nothing to learn for "
                f"{num_tasks} tasks; it is for at most {int(1 / CLAMP[0]) - 1}"
            )

    def _first_losses(self, losses: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]``: each task's first loss, or ones where losses are not scaled."""
        if self.scale == "none":
            return torch.ones_like(losses)
        known = self._initial.rows(losses, tasks)
        self._initial.write(torch.where(known.isnan(), losses, known), tasks, where=are_finite(losses))
        return self._initial.rows(losses, tasks)

    def _scale_losses(self, losses: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[K]`` l, its slope in L, and what must be positive."""
        if self.scale == "log_initial":
            return (losses / first).log(), 1 / losses, torch.minimum(losses, first)
        if self.scale == "none":
            return losses, torch.ones_like(losses), first
        assert self._initial.values is not None, "written by _first_losses"
        least = self._initial.values.nan_to_num(nan=torch.inf).amin()  # of absent tasks, too
        return losses / first * least, least / first, first  # equal at the first step, so that no gap is rounding

    def _route(self, x: Tensor) -> Tensor:
        """W from x."""
        if self.router == "sigmoid":
            return x.sigmoid()
        if self.router == "relu_sigmoid":
            return x.relu().sigmoid()
        w = x.softmax(-1)
        return w.clamp(*CLAMP) if self.router == "clamped_softmax" else w

    def _slope_of_weights(self, w: Tensor, scaled: Tensor, slopes: Tensor) -> Tensor:
        """The gradient of ``g / S + lam f`` in w."""
        total = w.sum()
        slope = scaled / total
        if self.gap == "weighted":
            slope = slope + self.lam * slopes * scaled
        if "softmax" in self.router:  # where S is no constant
            slope = slope - (w * scaled).sum() / total.square()
        return slope

    def _through_router(self, x: Tensor, w: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of x from that of w."""
        if self.router == "sigmoid":
            return w * (1 - w) * gradient
        if self.router == "relu_sigmoid":
            return (x > 0) * w * (1 - w) * gradient
        shares = x.softmax(-1)
        if self.router == "clamped_softmax":
            gradient = torch.where((shares >= CLAMP[0]) & (shares <= CLAMP[1]), gradient, 0.0)
        return shares * (gradient - (shares * gradient).sum())


def _slopes(values: Tensor) -> Tensor:
    """Derivative of the sum of the distances of neighbouring ``values`` [K]."""
    signs = (values[:-1] - values[1:]).sign()
    return torch.nn.functional.pad(signs, (0, 1)) - torch.nn.functional.pad(signs, (1, 0))
