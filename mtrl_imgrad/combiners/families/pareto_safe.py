"""``pareto_safe=True``: a combination that is uphill for a task is projected onto the dual cone of the gradients.

See `mtrl_imgrad.combiners.solvers.dual_cone`. A task counts as harmed where its loss is beyond what rounding may do; a
combination that harms none stays as it is, bit for bit. Afterwards ``g_i . d >= -1e-12 |g_i| sum_j |v_j| |g_j|`` for
every task, d being the combination with weights v.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.dual_cone import Correction, correct
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.weights import Weights, solved_where

TOLERANCE = 1e-12
"""Residual up to which a projection counts as solved."""


def harmless(problem: NormalizedGramian, weights: Weights) -> Weights:
    """``weights``, projected onto the dual cone of the gradients where it harms a task.

    Args:
        problem: the Gramian.
        weights: coefficients of a combination of its gradients.

    Returns:
        The projection; residual and status are the worse of the method's and the projection's.
    """
    parts = weights.values * problem.norms
    correction = correct(problem.cosines, parts[..., None, :])
    added = correction.added[..., 0, :]
    values = weights.values + problem.inverse_norms * added
    residual = torch.maximum(weights.residual, correction.residual[..., 0])
    status_code = torch.maximum(weights.status_code, projection_status(correction))
    projected = replace(weights, values=values, residual=residual, status_code=status_code)
    return projected.where((added > 0).any(-1), weights)


def projection_status(correction: Correction) -> Tensor:
    """``[...]`` status codes of the first row of a `correct`."""
    solved = correction.residual[..., 0] <= TOLERANCE
    return solved_where(solved)
