"""What ``pareto_safe=True`` does: where a combination is uphill for a task, the nearest that is not takes its place.

That is the projection onto the dual cone, see `mtrl_imgrad.combiners.dual_cone`. A task counts as harmed
where its loss is beyond what rounding may do; what harms none stays as it is, bit for bit. Afterwards
``g_i . d >= -1e-12 |g_i| sum_j |v_j| |g_j|`` for every task, d being the combination with weights v.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mtrl_imgrad.combiners.dual_cone import correct
from mtrl_imgrad.combiners.normalised import NormalisedGramian
from mtrl_imgrad.combiners.outcome import Status, Weights

__all__ = ["TOLERANCE", "harmless", "projection_status"]

TOLERANCE = 1e-12
"""Residual up to which a projection counts as solved."""


def projection_status(residual: Tensor) -> Tensor:
    """`Status` values ``[...]`` of projections with these residuals."""
    return torch.where(residual <= TOLERANCE, int(Status.SOLVED), int(Status.INACCURATE))


def harmless(problem: NormalisedGramian, found: Weights) -> Weights:
    """``found``, projected onto the dual cone of the gradients where it harms a task.

    Args:
        problem: the Gramian.
        found: coefficients of a combination of its gradients.

    Returns:
        The projection; residual and status are the worse of the method's and the projection's.
    """
    parts = found.values * problem.norms
    correction = correct(problem.cosines, parts[..., None, :])
    residual = correction.residual[..., 0]
    status = projection_status(residual)
    added = correction.added[..., 0, :]
    changed = (added > 0).any(-1)
    return replace(
        found,
        values=found.values + problem.inverse_norms * added,
        residual=torch.where(changed, torch.maximum(found.residual, residual), found.residual),
        status_code=torch.where(changed, torch.maximum(found.status_code, status), found.status_code),
    )
