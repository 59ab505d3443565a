"""Exact solvers for the two convex problems on the simplex that MGDA, CAGrad and IMGrad are made of.

Both are ``min over w in the simplex of  b'w + q sqrt(w'Mw)``:  the min-norm point with b = 0 and q = 1, the
conflict-averse dual with the method's own b and q. `mtrl_imgrad.combiners.solvers.active_set` solves them; this
module puts problems into its units and answers into ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import check_tensor
from mtrl_imgrad.combiners.printing import as_line, numbers_text
from mtrl_imgrad.combiners.solvers.active_set import certify, minimise
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.optimality import VANISHING, Answer
from mtrl_imgrad.combiners.weights import Status, solved_where
from mtrl_imgrad.errors import ArgumentError

TOLERANCE = 1e-9
"""Residual of the dual up to which an answer counts as solved even where rounding alone does not explain it."""
SQUARED_TOLERANCE = 1e-11
"""The same for the min-norm point, whose conditions are those of a squared length."""


@dataclass(frozen=True, repr=False)
class SimplexSolution:
    """A point of the simplex with its certificate. Where gradients are dependent it need not be unique.

    Attributes:
        weights: ``[..., K]`` float64, non-negative, sum 1; 0 for a zero gradient.
        multipliers: ``[..., K]`` non-negative coefficients y of the optimal correction ``u = y @ jacobian``,
            ``|u| <= q``: the weights scaled to length q, unless the weighted gradient is zero.
        residual: ``[...]`` largest violation of the optimality conditions, relative.
        status_code: ``[...]`` int64 `Status` values.
    """

    weights: Tensor
    multipliers: Tensor
    residual: Tensor
    status_code: Tensor

    def __repr__(self) -> str:
        """In one line."""
        status = Status(int(self.status_code.max())).name
        parts = [status, numbers_text("residual", self.residual), numbers_text("weights", self.weights)]
        return as_line("SimplexSolution", parts)


def min_norm_point(gramian: Tensor | NormalizedGramian) -> SimplexSolution:
    """Shortest vector in the convex hull of the task gradients, ``min w'Mw`` over the simplex.

    Args:
        gramian: ``[..., K, K]``.

    Returns:
        The weights. The residual is that of ``g_i . g_w >= |g_w|^2``, in units of ``|g_i| sum_j w_j |g_j|``.
    """
    problem = gramian if isinstance(gramian, NormalizedGramian) else normalize(gramian)
    zeros = torch.zeros_like(problem.norms)
    ones = torch.ones_like(problem.scale)
    minimum = minimise(problem.cosines, problem.inverse_norms, zeros, ones)
    # Stationarity of the length is that of its square divided by the length, which is 1 / sum(y).
    return _solution(problem, minimum, minimum.violation / minimum.y.sum(-1), SQUARED_TOLERANCE)


def conflict_averse_dual(gramian: Tensor | NormalizedGramian, linear: Tensor, radius: Tensor) -> SimplexSolution:
    """``min b'w + q sqrt(w'Mw)`` over the simplex, the dual of ``max_{|u| <= q} min_i (g_i . u + b_i)``.

    Args:
        gramian: ``[..., K, K]``.
        linear: ``[..., K]``, b. Given a `NormalizedGramian`, b and q are in its units.
        radius: ``[...]``, q >= 0.

    Returns:
        The weights. The residual is that of ``g_i . u + b_i >= optimum`` for all tasks, in units of
        ``|g_i| (q + max_j |b_j| / |g_j|)``.
    """
    problem, linear, radius = _in_units(gramian, linear, radius)
    scaled = linear * problem.inverse_norms
    minimum = minimise(problem.cosines, problem.inverse_norms, scaled, radius)
    # Unproven and of length zero: the direction of the weighted gradient is rounding error, so none is followed.
    vanishes = ~minimum.done & (minimum.y.sum(-1) * VANISHING >= radius * (1 - VANISHING))
    minimum = minimum._replace(y=torch.where(vanishes[..., None], 0.0, minimum.y))
    return _solution(problem, minimum, minimum.violation, TOLERANCE)


def check_dual(gramian: Tensor | NormalizedGramian, linear: Tensor, radius: Tensor, weights: Tensor) -> SimplexSolution:
    """Any ``weights`` [..., K] on the simplex with their residual as an answer to `conflict_averse_dual`."""
    problem, linear, radius = _in_units(gramian, linear, radius)
    scaled = linear * problem.inverse_norms
    z = weights.double() * problem.norms
    minimum = certify(problem.cosines, problem.inverse_norms, scaled, radius, z)
    return _solution(problem, minimum, minimum.violation, TOLERANCE)


def _in_units(
    gramian: Tensor | NormalizedGramian, linear: Tensor, radius: Tensor
) -> tuple[NormalizedGramian, Tensor, Tensor]:
    if isinstance(gramian, NormalizedGramian):
        return gramian, linear, radius
    problem = normalize(gramian)
    for name, value, like in (("linear", linear, problem.norms), ("radius", radius, problem.scale)):
        check_tensor(name, value)
        if value.shape != like.shape:
            raise ArgumentError(f"{name} must have shape {tuple(like.shape)}, got {tuple(value.shape)}")
    return problem, linear.double() / problem.scale[..., None], radius.double() / problem.scale.sqrt()


def _solution(problem: NormalizedGramian, minimum: Answer, residual: Tensor, tolerance: float) -> SimplexSolution:
    weights = problem.inverse_norms * minimum.z
    weights = weights / weights.sum(-1, keepdim=True)
    status = solved_where(minimum.done | (residual <= tolerance))
    return SimplexSolution(weights, problem.inverse_norms * minimum.y, residual, problem.status_code(status))
