"""UPGrad, Jacobian descent: every task gradient is moved to the nearest update that harms no task, then averaged.

Quinton and Rey, 2024, arXiv 2406.16232.

``d = sum_k P(g_k) / K`` with P the projection onto the cone ``{d: g_i . d >= 0 for all i}``. ``P(g_k) = g_k + G'y``
with ``y = argmin over y >= 0 of |g_k + G'y|^2``: K non-negative quadratic programs that share one Gramian. The cone is
convex, so d is in it: no task is harmed to first order. Without conflicts d is the mean.

The K programs share one matrix and are solved together, see `mtrl_imgrad.combiners.solvers.dual_cone`.

Departures from the authors' code: the programs are solved exactly in units of the cosines; no ridge (theirs adds
1e-4 to the normalized Gramian), no threshold below which gradients count as zero. A task whose gradient is zero is left
out and keeps its weight 1 / K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.solvers.dual_cone import correct
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights, solved_where

TOLERANCE = 1e-9
"""Residual up to which an answer counts as solved."""


class UPGrad(GramianCombiner):
    """Mean of the projections of the task gradients onto the cone without conflict. With one task ``d = g``.

    The residual is the largest over the K programs, on unit gradients: of ``g_i . P(g_k) >= 0``, and of ``= 0`` where
    task i was pushed against, in units of the coefficients' sum.

    Args:
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "upgrad"
    departures = "No ridge on the Gramian, and no threshold below which it counts as zero."
    citation = "quinton2024jacobian"

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients, each at least 1 / K; see `GramianCombiner.weights`."""
        problem = normalize(gramian)
        unit_gradients = torch.eye(problem.num_tasks, dtype=torch.float64, device=problem.values.device)
        corrections = correct(problem.cosines, unit_gradients.expand(problem.values.shape))
        added = (problem.norms[..., None, :] @ corrections.added)[..., 0, :] * problem.inverse_norms
        residual = corrections.residual.amax(-1)
        return problem.weights(
            (1 + added) / problem.num_tasks,
            residual=residual,
            status_code=solved_where(residual <= TOLERANCE),
        )
