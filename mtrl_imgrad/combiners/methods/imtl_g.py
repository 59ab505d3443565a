"""IMTL-G, impartial multi-task learning: the update has the same projection on every task's unit gradient.

Liu et al., ICLR 2021.

``d = G'v`` with ``(g_i / |g_i|) . d`` equal for all i and ``sum_i v_i = 1``. With n the norms and C the cosines,
``n v`` is proportional to ``C^-1 1``. Weights may be negative for three tasks or more. The sum of one makes v a
weighted mean: the unit is that of the mean gradient.

Where the gradients are dependent, ``C^-1 1`` is the least-norm solution of ``C z = 1``; if there is none, the equal
projections are zero and z is the part of 1 that C maps to zero, the limit of a ridge that vanishes (for two opposed
gradients ``d = 0``).

Departures from the authors' code: solved through the eigenvalues of the cosines, so that norms orders of magnitude
apart do no harm, where theirs inverts differences of gradients; no epsilons. Where the weights that give equal
projections sum to zero they cannot be scaled to sum one: the answer is then the mean, status ``INACCURATE``, with the
mean's own residual. A task whose gradient is zero is left out, with weight 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.spectrum import decompose
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights, solved_where

TOLERANCE = 1e-9
"""Difference of the projections, in units of ``sum_j |v_j| |g_j|``, up to which they count as equal."""
_CANCELLED = 1e-8
"""A sum this small beside the sum of its sizes is rounding error."""


class IMTLG(GramianCombiner):
    """Combination with equal projections on the unit task gradients. With one task ``d = g``.

    The residual is the largest difference between two projections, in units of ``sum_j |v_j| |g_j|``.

    Args:
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "imtl_g"
    departures = "Solved through the cosines' eigenvalues, without epsilons."
    citation = "liu2021towards"

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients of sum 1; see `GramianCombiner.weights`."""
        problem = normalize(gramian)
        ones = problem.nonzero.double()
        spectrum = decompose(problem.cosines)
        regular = spectrum.times(1 / spectrum.values, ones)
        missed = (problem.cosines @ regular[..., None])[..., 0] - ones
        solvable = missed.abs().amax(-1) <= TOLERANCE * (1 + regular.abs().sum(-1))
        outside = (ones - spectrum.times(torch.ones_like(ones), ones)) * ones
        z = torch.where(solvable[..., None], regular, outside)
        weights = z * problem.inverse_norms
        total = weights.sum(-1, keepdim=True)
        undefined = total.abs() <= _CANCELLED * weights.abs().sum(-1, keepdim=True)
        values = torch.where(undefined, ones / ones.sum(-1, keepdim=True), weights / total)
        residual = _spread(problem, values * problem.norms)
        solved = ~undefined[..., 0] & (residual <= TOLERANCE)
        return problem.weights(
            values,
            residual=residual,
            status_code=solved_where(solved),
        )


def _spread(problem: NormalizedGramian, z: Tensor) -> Tensor:
    """Largest less smallest projection of ``z @ unit gradients``, relative to ``sum_j |z_j|``."""
    projections = (problem.cosines @ z[..., None])[..., 0]
    highest = torch.where(problem.nonzero, projections, -torch.inf).amax(-1)
    lowest = torch.where(problem.nonzero, projections, torch.inf).amin(-1)
    return (highest - lowest) / z.abs().sum(-1).clamp_min(1e-300)
