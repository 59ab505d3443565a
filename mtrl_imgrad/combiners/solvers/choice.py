"""The ``solver`` argument: exact, or a general conic solver for the published programs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.solvers.power_fair import PowerFairSolution, power_fair
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, conflict_averse_dual, min_norm_point

SolverName = Literal["exact", "cvxpy"]


def usable_solver(solver: SolverName) -> SolverName:
    """``solver``, if it can be used."""
    if solver == "cvxpy":
        from mtrl_imgrad.combiners.solvers.conic import require_cvxpy

        require_cvxpy()
    return solver


def solve_min_norm(problem: NormalizedGramian, solver: SolverName) -> SimplexSolution:
    """`min_norm_point` by the solver asked for."""
    if solver == "exact":
        return min_norm_point(problem)
    return solve_dual(problem, torch.zeros_like(problem.norms), torch.ones_like(problem.scale), solver)


def solve_dual(problem: NormalizedGramian, linear: Tensor, radius: Tensor, solver: SolverName) -> SimplexSolution:
    """`conflict_averse_dual` by the solver asked for."""
    if solver == "exact":
        return conflict_averse_dual(problem, linear, radius)
    from mtrl_imgrad.combiners.solvers.conic import cvxpy_dual

    return cvxpy_dual(problem, linear, radius)


def solve_bargain(problem: NormalizedGramian, solver: SolverName) -> PowerFairSolution:
    """`power_fair` for alpha = 1, Nash-MTL's problem, by the solver asked for."""
    if solver == "exact":
        return power_fair(problem, 1.0)
    from mtrl_imgrad.combiners.solvers.conic import cvxpy_bargain

    return cvxpy_bargain(problem)
