"""The published programs by a general conic solver: the reference of the exact solvers.

cvxpy is an optional dependency and is imported on first use. The problems are copied to the host and solved
one by one, so this is for checks, not for training.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.solvers.power_fair import PowerFairSolution, check_balance
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, check_dual
from mtrl_imgrad.combiners.weights import solved_where
from mtrl_imgrad.extras import require

CONIC_TOLERANCE = 1e-4
"""Residual above which an answer of the conic solver is reported as `Status.INACCURATE`."""


def require_cvxpy() -> ModuleType:
    """The cvxpy module."""
    require('solver="cvxpy"', "cvxpy")
    import cvxpy

    return cvxpy


def cvxpy_dual(problem: NormalizedGramian, linear: Tensor, radius: Tensor) -> SimplexSolution:
    """``min b'w + q sqrt(w'Mw)`` over the simplex by CLARABEL; arguments as `conflict_averse_dual`.

    Returns:
        The solution, on the Gramian's device.
    """
    shape = problem.norms.shape
    num_tasks = shape[-1]
    matrices = problem.values.reshape(-1, num_tasks, num_tasks).cpu().numpy()
    linears = linear.reshape(-1, num_tasks).cpu().numpy()
    radii = radius.reshape(-1).cpu().numpy()
    masks = problem.nonzero.reshape(-1, num_tasks).cpu().numpy()
    rows = [_solve_one(*one) for one in zip(matrices, linears, radii, masks, strict=True)]
    weights = torch.from_numpy(np.stack(rows)).reshape(shape).to(problem.values.device)
    solution = check_dual(problem, linear, radius, weights)
    status = solved_where(solution.residual <= CONIC_TOLERANCE)
    return replace(solution, status_code=problem.status_code(status))


def cvxpy_bargain(problem: NormalizedGramian) -> PowerFairSolution:
    """Nash-MTL's ``M a = 1 / a`` as ``min a'Ma / 2 - sum log a`` by CLARABEL, in ``z = norms * a``.

    Returns:
        The solution, on the Gramian's device; NaN where the solver finds none.
    """
    shape = problem.norms.shape
    matrices = problem.cosines.reshape(-1, shape[-1], shape[-1]).cpu().numpy()
    masks = problem.nonzero.reshape(-1, shape[-1]).cpu().numpy()
    rows = [_bargain_one(*one) for one in zip(matrices, masks, strict=True)]
    z = torch.from_numpy(np.stack(rows)).reshape(shape).to(problem.values.device)
    solution = check_balance(problem, z)
    status = solved_where(solution.residual <= CONIC_TOLERANCE)
    return replace(solution, status_code=problem.status_code(status))


def _bargain_one(cosines: np.ndarray, nonzero: np.ndarray) -> np.ndarray:
    cp = require_cvxpy()
    z = cp.Variable(int(nonzero.sum()))
    objective = cp.sum_squares(_root(cosines[np.ix_(nonzero, nonzero)]) @ z) / 2 - cp.sum(cp.log(z))
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
    solution = np.zeros(len(nonzero))
    solution[nonzero] = np.nan if z.value is None else z.value
    return solution


def _root(matrix: np.ndarray) -> np.ndarray:
    """R with ``R'R = matrix``."""
    values, vectors = np.linalg.eigh(matrix)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def _solve_one(matrix: np.ndarray, linear: np.ndarray, radius: float, nonzero: np.ndarray) -> np.ndarray:
    cp = require_cvxpy()
    root = _root(matrix[np.ix_(nonzero, nonzero)])
    w = cp.Variable(int(nonzero.sum()), nonneg=True)
    objective = cp.Minimize(linear[nonzero] @ w + float(radius) * cp.norm(root @ w))
    cp.Problem(objective, [cp.sum(w) == 1]).solve(solver=cp.CLARABEL)
    weights = np.full(len(nonzero), np.nan if w.value is None else 0.0)
    if w.value is not None:
        weights[nonzero] = np.clip(w.value, 0, None)
    return weights / weights.sum()
