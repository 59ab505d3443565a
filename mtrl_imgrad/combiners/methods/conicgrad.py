"""ConicGrad: among the updates within an angle of the mean gradient, the one that helps the worst-off task most.

Hassanpour et al., 2025, arXiv 2502.00217.

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

At Pareto-stationary points g_w may vanish across g0 and has no direction there. Then the optimum is ``c a``, and u the
shortest vector that gives every task this gain: a dual-cone projection. d is then shorter than g0.

A task whose gradient lies along g0 gains the same from every u, so it is left out of the search for u.

No code is public. We know the problem, and that the paper has a closed form for d; how it moves w, its c and its
number of steps are not known to us. Ours is the exact solution of the problem, and c = 0.5 is ours.

Parts across g0 below 1e-6 of their gradient count as rounding error. Where no u can be told from the rounding error of
gradients that cancel, u is zero and the status ``INACCURATE``.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.active_set import pick
from mtrl_imgrad.combiners.solvers.dual_cone import lift
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.optimality import VANISHING
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, conflict_averse_dual, min_norm_point
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Status, Weights, solved_where
from mtrl_imgrad.validation import Count, Probability

_SMALLEST_ACROSS = 1e-6
"""Length of a part across g0 beside its gradient. Much smaller ones would take coefficients that cancel."""

_LARGEST_MULTIPLIERS = 1e4
"""Sum of the coefficients of u in units of the gradients. Above, u is what rounding leaves of parts that cancel."""


_SLACK = 1e-9
"""By which the gain that u has to give falls short of the optimum, relative to the gains."""


class ConicGrad(GramianCombiner):
    """The best update for the worst-off task in a cone around the mean gradient. With one task ``d = g``.

    Args:
        c: cosine of the cone's half angle, in [0, 1]. 1 is the mean gradient; 0 the min-norm point's direction.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "conicgrad"
    departures = "The exact solution of the paper's problem; how the paper moves w, and its c, are not known to us."
    citation = "hassanpour2025fantastic"

    def __init__(self, c: Probability = 0.5, *, update_every: Count = 1, reduction: Reduction = "mean") -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.c = c

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``simplex_weights`` [..., K], w, and ``inside`` [...], whether the min-norm point lies in the cone.
        """
        problem = normalize(gramian)
        nearest = min_norm_point(problem)
        along, length = _coordinates(problem, nearest.weights)
        real = length > VANISHING * (nearest.weights * problem.norms).sum(-1)
        inside = real & (along >= self.c * length)
        stretched = nearest.weights * (problem.mean_norm / torch.where(real, length, 1.0))[..., None]

        across = _across(problem)
        linear = self.c * _along(problem) * across.nonzero
        radius = math.sqrt(1 - self.c**2)
        solution = conflict_averse_dual(across, linear, torch.full_like(problem.scale, radius))
        side = _side(problem, across, linear, radius, solution, inside)
        return problem.weights(
            torch.where(inside[..., None], stretched, _on_the_cone(problem, side.multipliers, self.c)),
            residual=torch.where(inside, nearest.residual, side.residual),
            status_code=torch.where(inside, nearest.status_code, side.status_code),
            extras={
                "simplex_weights": _best(problem, across, self.c, nearest.weights, solution.weights),
                "inside": inside.double(),
            },
        )


def _side(
    problem: NormalizedGramian,
    across: NormalizedGramian,
    linear: Tensor,
    radius: float,
    solution: SimplexSolution,
    inside: Tensor,
) -> SimplexSolution:
    """``solution`` with multipliers of u that can be trusted; those of no u, and ``INACCURATE``, where there are none.

    Where the weighted gradient vanishes across g0 the weights have no direction. The optimum is then ``linear . w``,
    and u is the shortest vector that gives every task this gain.
    """
    multipliers = torch.where(across.nonzero, solution.multipliers, 0.0)
    doubtful = (solution.status_code != int(Status.SOLVED)) | _cancel(problem, multipliers)
    weighted = (solution.weights * (across.values @ solution.weights[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()
    vanishes = weighted <= VANISHING * (solution.weights * across.norms).sum(-1)
    unsolved = ~inside & doubtful
    optimum = (linear * solution.weights).sum(-1, keepdim=True)
    size = linear.abs().amax(-1, keepdim=True) + optimum.abs()
    gains = (linear - optimum + _SLACK * size) * across.inverse_norms  # the slack is more than rounding
    size = size * across.inverse_norms.amax(-1, keepdim=True)
    lifted = lift(
        across.cosines, torch.where((unsolved & vanishes)[..., None], gains, 0.0)[..., None, :], size[..., None, :]
    )
    y = lifted.added[..., 0, :]
    instead = y * across.inverse_norms
    length = (y * (across.cosines @ y[..., None])[..., 0]).sum(-1)
    holds = vanishes & lifted.done[..., 0] & (length <= (1 + _SLACK) * radius**2) & ~_cancel(problem, instead)
    multipliers = torch.where(unsolved[..., None], torch.where(holds[..., None], instead, 0.0), multipliers)
    return dataclasses.replace(
        solution,
        multipliers=multipliers,
        residual=torch.where(unsolved & holds, lifted.residual[..., 0], solution.residual),
        status_code=torch.where(unsolved, solved_where(holds), solution.status_code),
    )


def _cancel(problem: NormalizedGramian, multipliers: Tensor) -> Tensor:
    """``[...]``: whether u is what rounding leaves of gradients that cancel."""
    return (multipliers * problem.norms).sum(-1) > _LARGEST_MULTIPLIERS


def _along(problem: NormalizedGramian) -> Tensor:
    """``[..., K]`` parts of the gradients along the mean gradient; 0 where that is rounding error."""
    inverse = torch.where(problem.mean_norm > VANISHING, 1 / problem.mean_norm, 0.0)
    return problem.linear * inverse[..., None]


def _coordinates(problem: NormalizedGramian, weights: Tensor) -> tuple[Tensor, Tensor]:
    """``[...]`` a and N, the part of g_w along the mean gradient and its length."""
    products = (problem.values @ weights[..., None])[..., 0]
    return (weights * _along(problem)).sum(-1), (weights * products).sum(-1).clamp_min(0).sqrt()


def _across(problem: NormalizedGramian) -> NormalizedGramian:
    """The Gramian of the parts of the gradients across the mean gradient; gradients along it are not ``nonzero``."""
    along = _along(problem)
    values = problem.values - along[..., :, None] * along[..., None, :]
    norms = values.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    nonzero = problem.nonzero & (norms > _SMALLEST_ACROSS * problem.norms)
    none = ~nonzero.any(-1, keepdim=True)  # any problem will do: its multipliers are not used
    eye = torch.eye(problem.num_tasks, dtype=torch.float64, device=values.device)
    return dataclasses.replace(
        problem,
        values=torch.where(none[..., None], eye, values),
        norms=torch.where(none, 1.0, torch.where(nonzero, norms, 0.0)),
        inverse_norms=torch.where(none, 1.0, torch.where(nonzero, 1 / norms, 0.0)),
        nonzero=nonzero,
    )


def _on_the_cone(problem: NormalizedGramian, multipliers: Tensor, c: float) -> Tensor:
    """Coefficients of ``|g0| (c g0 / |g0| + u)``, u the part across g0 of what the multipliers combine."""
    along = (multipliers * _along(problem)).sum(-1)
    return problem.mean_norm[..., None] * multipliers + ((c - along) / problem.num_tasks)[..., None]


def _best(problem: NormalizedGramian, across: NormalizedGramian, c: float, *weights: Tensor) -> Tensor:
    """The least s among ``weights`` and the gradient along g0 that gains least, ``[..., K]``."""
    gains = torch.where(problem.nonzero & ~across.nonzero, _along(problem), torch.inf)
    vertex = torch.zeros_like(gains).scatter(-1, gains.argmin(-1, keepdim=True), 1.0)
    candidates = torch.stack([*weights, vertex], -2)
    objectives = []
    for candidate in candidates.unbind(-2):
        along, length = _coordinates(problem, candidate)
        outside = c * along + math.sqrt(1 - c * c) * (length * length - along * along).clamp_min(0).sqrt()
        objectives.append(torch.where(along >= c * length, length, outside))
    best = torch.stack(objectives, -1).argmin(-1, keepdim=True)
    return pick(candidates, best)[..., 0, :]
