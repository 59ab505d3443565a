"""``pareto_safe=True``: a combination that is uphill for a task is projected onto the dual cone of the gradients.

See `mtrl_imgrad.combiners.solvers.dual_cone`. A task counts as harmed
where its loss is beyond what rounding may do; what harms none stays as it is, bit for bit. Afterwards
``g_i . d >= -1e-12 |g_i| sum_j |v_j| |g_j|`` for every task, d being the combination with weights v.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.dual_cone import Correction, correct
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.weights import Status, Weights

TOLERANCE = 1e-12
"""Residual up to which a projection counts as solved."""


def harmless(problem: NormalizedGramian, found: Weights) -> Weights:
    """``found``, projected onto the dual cone of the gradients where it harms a task.

    Args:
        problem: the Gramian.
        found: coefficients of a combination of its gradients.

    Returns:
        The projection; residual and status are the worse of the method's and the projection's.
    """
    parts = found.values * problem.norms
    correction = correct(problem.cosines, parts[..., None, :])
    added = correction.added[..., 0, :]
    values = found.values + problem.inverse_norms * added
    residual = torch.maximum(found.residual, correction.residual[..., 0])
    status_code = torch.maximum(found.status_code, projection_status(correction))
    return where((added > 0).any(-1), replace(found, values=values, residual=residual, status_code=status_code), found)


def projection_status(correction: Correction) -> Tensor:
    """``[...]`` status codes of the first row of a `correct`."""
    solved = correction.residual[..., 0] <= TOLERANCE
    return torch.where(solved, int(Status.SOLVED), int(Status.INACCURATE))


def where(condition: Tensor, found: Weights, other: Weights) -> Weights:
    """``found`` where the condition [...] holds, else ``other``; with the extras of ``found``."""
    return replace(
        found,
        values=torch.where(condition[..., None], found.values, other.values),
        residual=torch.where(condition, found.residual, other.residual),
        status_code=torch.where(condition, found.status_code, other.status_code),
    )
