"""ConicGrad: among the updates within an angle of the mean gradient, the one that helps the worst-off task most.

Hassanpour, Janjua, Zhang, Lavasani, Zhang, Zhou, Gao, "Fantastic Multi-Task Gradient Updates and How to Find Them In a
Cone", 2025, arXiv 2502.00217.

``max over d of min_i g_i . d  subject to  g0 . d >= c |g0| |d|``, g0 the mean gradient, and we fix the length to that
of g0. With ``a = g_w . g0 / |g0|``, ``N = |g_w|`` and ``r = sqrt(N^2 - a^2)``, the part of g_w across g0, the dual is

    min over the simplex of  s(w) = N  where a >= c N,  c a + sqrt(1 - c^2) r  elsewhere,

the largest product of g_w with a unit vector of the cone. Both pieces are problems that the exact solvers know: N is
the min-norm point's, and ``c a + sqrt(1 - c^2) r`` is the conflict-averse dual of the gradients' parts across g0. One
of the two minimisers is the answer:

* ``c a + sqrt(1 - c^2) r <= s <= N`` everywhere (Cauchy-Schwarz). If the min-norm point lies in the cone, its
  direction is feasible and gains N on every task; no d gains more than the least s, which is at most N. So it is
  optimal.
* If it does not, no optimum has ``a > c N``: s is N around it, so it would be the min-norm point. Where ``a <= c N``
  the second piece touches s with the same slope, so an optimum of s is one of the second piece, which is convex.

Then ``d = |g0| g_w / N``, or ``d = |g0| (c g0 / |g0| + u)`` with u across g0, along g_w's part there,
``|u| = sqrt(1 - c^2)``.

Departures: the paper finds w by gradient steps and its code is not public; ours is the exact solution of its problem.
The value of c is ours. Parts across g0 shorter than 1e-6 of their gradient are rounding error and count as that long.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import GramianCombiner, Reduction, TaskIds, Weights
from mtrl_imgrad.combiners.checks import check_number
from mtrl_imgrad.combiners.normalised import NormalisedGramian, normalise
from mtrl_imgrad.combiners.optimality import VANISHING
from mtrl_imgrad.combiners.solvers import conflict_averse_dual, min_norm_point

__all__ = ["ConicGrad"]

_SMALLEST_ACROSS = 1e-6
"""Length of a part across g0 beside its gradient. Much smaller ones would need coefficients that cancel."""


class ConicGrad(GramianCombiner):
    """The best update for the worst-off task in a cone around the mean gradient. With one task ``d = g``.

    Args:
        c: cosine of the cone's half angle, in [0, 1]. 1 is the mean gradient; 0 the min-norm point's direction.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "conicgrad"
    departures = "The exact solution of the paper's problem; its own iteration and its c are not public."
    paper = (
        "Negar Hassanpour, Muhammad Kamran Janjua, Kunlin Zhang, Sepehr Lavasani, Xiaowen Zhang, Chunhua Zhou and "
        "Chao Gao. Fantastic Multi-Task Gradient Updates and How to Find Them In a Cone. 2025. arXiv:2502.00217"
    )

    def __init__(self, c: float = 0.5, *, update_every: int = 1, reduction: Reduction = "mean") -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.c = check_number("c", c, 0, 1)

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``simplex_weights`` [..., K], w, and ``inside`` [...], whether the min-norm point lies in the cone.
        """
        problem = normalise(gramian)
        nearest = min_norm_point(problem)
        length = (nearest.weights * (problem.values @ nearest.weights[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()
        along = (nearest.weights * problem.linear).sum(-1)
        real = length > VANISHING * (nearest.weights * problem.norms).sum(-1)
        inside = real & (along >= self.c * problem.mean_norm * length)
        stretched = nearest.weights * (problem.mean_norm / torch.where(real, length, 1.0))[..., None]

        across = _across(problem)
        linear = self.c * problem.linear * _inverse(problem.mean_norm)[..., None] * problem.alive
        radius = torch.full_like(problem.scale, math.sqrt(1 - self.c**2))
        found = conflict_averse_dual(across, linear, radius)
        return problem.weights(
            torch.where(inside[..., None], stretched, _on_the_cone(problem, found.multipliers, self.c)),
            base=1 / problem.num_tasks,
            residual=torch.where(inside, nearest.residual, found.residual),
            status_code=torch.where(inside, nearest.status_code, found.status_code),
            extras={
                "simplex_weights": torch.where(inside[..., None], nearest.weights, found.weights),
                "inside": inside.double(),
            },
        )


def _inverse(length: Tensor) -> Tensor:
    """``1 / length``, and 0 where that is rounding error beside gradients of length one."""
    return torch.where(length > VANISHING, 1 / length, 0.0)


def _across(problem: NormalisedGramian) -> NormalisedGramian:
    """The Gramian of the parts of the gradients across the mean gradient."""
    along = problem.linear * _inverse(problem.mean_norm)[..., None]
    values = problem.values - along[..., :, None] * along[..., None, :]
    squares = values.diagonal(dim1=-2, dim2=-1)
    squares = torch.maximum(squares, (_SMALLEST_ACROSS * problem.norms) ** 2)
    eye = torch.eye(problem.num_tasks, dtype=torch.bool, device=values.device)
    norms = torch.where(problem.alive, squares, 0.0).sqrt()
    return dataclasses.replace(
        problem,
        values=torch.where(eye, squares[..., None, :], values),
        norms=norms,
        inverse_norms=torch.where(problem.alive, 1 / norms, 0.0),
    )


def _on_the_cone(problem: NormalisedGramian, multipliers: Tensor, c: float) -> Tensor:
    """Coefficients of ``|g0| (c g0 / |g0| + u)``, u the part across g0 of what the multipliers combine."""
    along = (multipliers * problem.linear).sum(-1) * _inverse(problem.mean_norm)
    return problem.mean_norm[..., None] * multipliers + ((c - along) / problem.num_tasks)[..., None]
