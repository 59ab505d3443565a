"""CAGrad, conflict-averse gradient descent: near the mean gradient, the update that helps the worst-off most.

Liu et al., NeurIPS 2021, arXiv 2110.14048.

``max over d of min_i g_i . d  subject to  |d - g0| <= c |g0|``, g0 the mean gradient. Its dual is
``min over the simplex of g_w . g0 + c |g0| |g_w|`` with ``g_w = G'w``, and ``d = g0 + c |g0| g_w / |g_w|``.

Departures from the authors' code: the dual is solved exactly on a normalized Gramian (theirs is SLSQP at the
default tolerance, which returns its starting point when gradients are small or large; in their
reinforcement-learning code twenty steps of gradient descent on a softmax, or SLSQP and a division by ``1 + lambda``
in place of ``1 + c^2``); no epsilon is added anywhere; the
combination stays in the unit of the mean gradient (theirs multiplies by K in the vision trainers:
``reduction="sum"``). Where ``g_w`` vanishes at the optimum it has no direction: d is then the
optimum with the correction that the dual's multipliers give, which may be shorter than ``c |g0|``, or g0 itself
(status ``INACCURATE``) in the rare case that no multipliers are found.

The ball holds an update that harms no task where c is at least ``c_min``, the distance of g0 from the cone of such
updates in units of ``|g0|``; then CAGrad, which maximises the least gain over the ball, finds one, and otherwise there
is none to find. ``pareto_safe=True`` (ours) raises c to c_min where it is below. The ball then touches the cone in one
point, the projection of g0, which is what is returned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.pareto_safe import projection_status
from mtrl_imgrad.combiners.families.task_sampling import TaskSampler
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.choice import SolverName, solve_dual, usable_solver
from mtrl_imgrad.combiners.solvers.dual_cone import correct, relative_length
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.optimality import VANISHING
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Count, NonNegative


class CAGrad(TaskSampler):
    """Conflict-averse combination.

    With one task ``d = (1 + c) g / (1 + c^2)``, or ``(1 + c) g`` without rescale.

    Args:
        c: radius of the ball around the mean gradient, in units of its norm; c >= 0, convergence to a
            stationary point of the mean loss is proven for c < 1. 0.4 is the authors' value for NYUv2,
            CityScapes and CelebA; they use 0.9 for MT10 and 0.5 for MT50.
        rescale: divide by ``1 + c^2``, as the authors do in practice, so that the step stays comparable to
            the mean.
        pareto_safe: raise c to c_min where it is below, so that no task is harmed; then ``g_i . d >= -1e-12 |g_i|
            sum_j |v_j| |g_j|``. Off, as in the paper. ``c_min`` is then among the extras.
        solver: ``"exact"``, or ``"cvxpy"`` for the published program with a general conic solver (slow, needs
            cvxpy).
        update_every: solve on every n-th step only, see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        MissingDependencyError: if ``solver="cvxpy"`` and cvxpy is not installed.
    """

    name = "cagrad"
    departures = "Solved exactly on a normalized Gramian; no epsilons; mean in place of the sum."
    citation = "liu2021conflict"

    def __init__(
        self,
        c: NonNegative = 0.4,
        *,
        rescale: bool = True,
        pareto_safe: bool = False,
        solver: SolverName = "exact",
        update_every: Count = 1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.c = c
        self.rescale = rescale
        self.pareto_safe = pareto_safe
        self.solver = usable_solver(solver)

    def solve_rows(self, gramian: Tensor, mean: Tensor | None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``simplex_weights`` [..., K], w; ``c_min`` [...] where ``pareto_safe``.
        """
        problem = normalize(gramian, mean)
        radius = self.c * problem.mean_norm
        dual = solve_dual(problem, problem.linear, radius, self.solver)
        weights = problem.weights(
            corrected_mean(problem, dual, radius, self.c) / self._divisor(),
            residual=dual.residual,
            status_code=dual.status_code,
            extras={"simplex_weights": dual.weights},
        )
        return _at_safe_radius(problem, weights, self.c, rescale=self.rescale) if self.pareto_safe else weights

    def _divisor(self) -> float:
        """The divisor of the combination under ``rescale``."""
        return 1 + self.c * self.c if self.rescale else 1.0


def corrected_mean(problem: NormalizedGramian, solution: SimplexSolution, radius: Tensor, c: float) -> Tensor:
    """Coefficients of ``g0 + c |g0| g_w / |g_w|``.

    Args:
        problem: the Gramian.
        solution: solution of the dual for ``radius``.
        radius: ``[...]`` q of the dual. Its correction is stretched from this length to ``c |g0|``.
        c: radius of the ball, in units of the mean gradient's norm.

    Returns:
        ``[..., K]``.
    """
    length = c * problem.mean_norm
    # For radius 0 the dual is linear, its solution is one task, and the multipliers are zero.
    one_task = solution.weights * (length / (solution.weights * problem.norms).sum(-1))[..., None]
    stretched = solution.multipliers * (length / radius)[..., None]
    return problem.mean + torch.where(radius[..., None] > 0, stretched, one_task)


def _at_safe_radius(problem: NormalizedGramian, weights: Weights, c: float, *, rescale: bool) -> Weights:
    """``weights`` where c is at least c_min, which joins the extras; elsewhere the answer for the radius c_min."""
    mean = (problem.norms * problem.mean)[..., None, :]
    correction = correct(problem.cosines, mean)
    added = correction.added[..., 0, :]
    least = relative_length(problem.cosines, mean, added[..., None, :])[..., 0]
    # A mean that is rounding error has no c_min; what CAGrad adds to it is rounding error as well and may do harm.
    vanishes = problem.mean_norm <= VANISHING * mean[..., 0, :].sum(-1)
    harmful = (least > c) | (vanishes & (added > 0).any(-1))
    projection = problem.mean + problem.inverse_norms * added
    raised = Weights(
        values=projection / (1 + least * least)[..., None] if rescale else projection,
        residual=correction.residual[..., 0],
        status_code=projection_status(correction),
        extras={**weights.extras, "c_min": problem.nan_unless_finite(least)},
    )
    # c_min is zero where the Gramian is not usable, so that what was found for it stays.
    return raised.where(harmful, weights)
