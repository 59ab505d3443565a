"""UPGrad, Jacobian descent: every task gradient is moved to the nearest update that harms no task, then averaged.

Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, arXiv 2406.16232.

``d = sum_k P(g_k) / K`` with P the projection onto the cone ``{d: g_i . d >= 0 for all i}``. ``P(g_k) = g_k + G'y``
with ``y = argmin over y >= 0 of |g_k + G'y|^2``: K non-negative quadratic programs that share one Gramian. The cone is
convex, so d is in it: no task is harmed to first order. Without conflicts d is the mean.

On unit gradients with cosines C the program of task k is ``min |z|_C / z_k`` over z >= 0, which the active-set method
solves; then ``P(g_k) = |g_k| sum_i (z_i / z_k) g_i / |g_i|``. Task k need not be pushed against itself: where it is,
its projection is zero, and dividing by z_k says the same.

Departures from the authors' code: the programs are solved exactly in units of the cosines; no ridge (theirs adds
1e-4 to the normalised Gramian), no threshold below which gradients count as zero. A task whose gradient is zero is left
out and keeps its weight 1 / K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.active_set import minimise
from mtrl_imgrad.combiners.base import GramianCombiner, Status, TaskIds, Weights
from mtrl_imgrad.combiners.normalised import normalise

__all__ = ["UPGrad"]

TOLERANCE = 1e-9
"""Residual up to which an answer counts as solved."""
_SMALLEST_SHARE = 1e-12
"""Of a task in its own projection, beside the sum of all coefficients."""


class UPGrad(GramianCombiner):
    """Mean of the projections of the task gradients onto the cone without conflict. With one task ``d = g``.

    The residual is the largest over the K programs, on unit gradients: of ``g_i . P(g_k) >= 0``, and of ``= 0`` where
    task i was pushed against, in units of the coefficients' sum.

    Args:
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "upgrad"
    paper = "Pierre Quinton and Valérian Rey. Jacobian Descent for Multi-Objective Optimization. 2024. arXiv:2406.16232"
    bibtex = """@misc{quinton2024jacobian,
  title = {Jacobian Descent for Multi-Objective Optimization},
  author = {Quinton, Pierre and Rey, Valérian},
  year = {2024},
  eprint = {2406.16232},
  archivePrefix = {arXiv}
}"""

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients, each at least 1 / K; see `GramianCombiner.weights`."""
        problem = normalise(gramian)
        # A task left out is orthogonal to all others here: it neither pushes nor is pushed.
        cosines = torch.where(problem.alive[..., None], problem.cosines, _identity(problem.cosines))
        parts, residual = _projections(cosines)
        pushed = (problem.norms[..., None, :] @ parts)[..., 0, :] * problem.inverse_norms
        return problem.weights(
            (1 + pushed) / problem.num_tasks,
            base=1 / problem.num_tasks,
            residual=torch.where(problem.zero, 0.0, residual),
            status_code=torch.where(residual <= TOLERANCE, int(Status.SOLVED), int(Status.INACCURATE)),
        )


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _projections(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """What projecting adds to the unit gradients.

    Args:
        cosines: ``[..., K, K]`` with unit diagonal.

    Returns:
        Coefficients ``[..., K, K]``, row k what is added to unit gradient k, and the largest residual ``[...]``.
    """
    roots = _identity(cosines).expand(cosines.shape)
    matrices = cosines[..., None, :, :].expand(*cosines.shape, cosines.shape[-1])
    found = minimise(matrices, roots, torch.zeros_like(cosines), torch.ones_like(cosines[..., 0]))
    share = found.z.diagonal(dim1=-2, dim2=-1)[..., None]
    # A share of zero is no answer. The unit gradient itself takes its place, and the residual tells.
    parts = torch.where(share > _SMALLEST_SHARE, found.z / share, roots)
    slack = parts @ cosines
    pushing = (parts > 0) & (roots == 0)
    violation = torch.where(pushing, slack.abs(), (-slack).clamp_min(0)).amax(-1)
    return parts * (1 - roots), (violation / parts.sum(-1)).amax(-1)
