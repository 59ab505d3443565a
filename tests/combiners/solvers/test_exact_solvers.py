"""The exact solvers against closed forms, enumeration of all supports, a conic solver, and their own conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtrl_imgrad.combiners import Status, conflict_averse_dual, min_norm_point
from mtrl_imgrad.combiners.solvers import active_set
from mtrl_imgrad.combiners.solvers.conic import cvxpy_dual
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.simplex_problems import check_dual
from tests.support.combiners.gradient_problems import best_by_enumeration, families, gramians, objective

FAMILIES = list(families(2, 1))
HARD_TO_SCALE = ("imbalance 1e9", "mean zero", "mean tiny", "thin half circle")
"""Families whose optimum is smaller than the rounding of a plain evaluation."""


def dual_data(jacobians, c):
    problem = normalize(gramians(jacobians))
    return problem, problem.linear, c * problem.mean_norm


def lengths(problem, weights):
    return (weights * (problem.values @ weights[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10, 50])
def test_the_min_norm_point_satisfies_its_conditions(family, num_tasks):
    problem = normalize(gramians(families(num_tasks, 20 if num_tasks < 50 else 5)[family]))
    found = min_norm_point(problem)
    assert (found.status_code == Status.SOLVED).all()
    assert found.residual.max() < 1e-10
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(problem.scale))
    # The same, without the solver's help: every task gains at least |g_w|^2, in units of the rounding.
    products = (problem.values @ found.weights[..., None])[..., 0]
    gain = (products - lengths(problem, found.weights)[..., None] ** 2) / problem.norms
    assert (gain / (found.weights * problem.norms).sum(-1, keepdim=True)).min() > -1e-10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("c", [0.05, 0.4, 0.9])
def test_the_dual_satisfies_its_conditions(family, num_tasks, c):
    problem, linear, radius = dual_data(families(num_tasks, 20 if num_tasks < 50 else 5)[family], c)
    found = conflict_averse_dual(problem, linear, radius)
    assert (found.status_code == Status.SOLVED).all()
    assert found.residual.max() < 1e-6
    assert (found.weights >= 0).all()
    assert (found.multipliers >= 0).all()
    torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(problem.scale))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in HARD_TO_SCALE])
@pytest.mark.parametrize("c", [0.4, 0.8])
def test_primal_and_dual_objective_meet(family, c):
    """The multipliers, shortened to length q, are a feasible correction: no notion of a residual is needed."""
    for num_tasks, seed in ((4, 2), (6, 0), (20, 1), (50, 100)):
        problem, linear, radius = dual_data(families(num_tasks, 20, seed)[family], c)
        found = conflict_averse_dual(problem, linear, radius)
        shorten = (radius / lengths(problem, found.multipliers).clamp_min(1e-300)).clamp_max(1.0)
        slope = (problem.values @ (found.multipliers * shorten[..., None])[..., None])[..., 0]
        primal = torch.where(problem.nonzero, slope + linear, torch.inf).amin(-1)
        dual = (linear * found.weights).sum(-1) + radius * lengths(problem, found.weights)
        size = dual.abs() + radius * (found.weights * problem.norms).sum(-1)
        solved = found.status_code == Status.SOLVED
        assert solved.double().mean() > 0.9
        assert ((dual - primal) / size)[solved].max() < 2e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("c", [None, 0.1, 0.4, 0.9])
def test_no_support_does_better(family, c):
    """None stands for the min-norm point."""
    for num_tasks in (2, 3, 5):
        problem = normalize(gramians(families(num_tasks, 4, seed=1)[family]))
        linear = problem.linear * (c is not None)
        radius = torch.ones_like(problem.scale) if c is None else c * problem.mean_norm
        solver = conflict_averse_dual(problem, linear, radius) if c else min_norm_point(problem)
        rows = zip(problem.values, linear, radius, solver.weights, problem.norms, strict=True)
        for gramian, b, q, w, norms in ([part.numpy() for part in row] for row in rows):
            best = best_by_enumeration(gramian, b, float(q))
            # A length below 1e-7 of what is added up is rounding error, whoever computes it.
            rounding = 1e-7 * float(q) * float(w @ norms) if c is None or family in HARD_TO_SCALE else 0.0
            assert objective(gramian, b, float(q), w) <= best + 1e-9 * abs(best) + max(rounding, 3e-8 * q)


@pytest.mark.parametrize("family", ["independent", "conflict", "square", "condition 1e12", "collinear"])
def test_enumeration_agrees_to_rounding_where_it_is_well_posed(family):
    for num_tasks in (2, 3, 4, 6):
        problem, linear, radius = dual_data(families(num_tasks, 5, seed=2)[family], 0.4)
        found = conflict_averse_dual(problem, linear, radius)
        rows = zip(problem.values, linear, radius, found.weights, strict=True)
        for gramian, b, q, w in ([part.numpy() for part in row] for row in rows):
            best = best_by_enumeration(gramian, b, float(q))
            assert objective(gramian, b, float(q), w) == pytest.approx(best, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(
    "family", ["conflict", "imbalance 1e6", "low rank", "duplicates", "condition 1e12", "half circle"]
)
@pytest.mark.parametrize("num_tasks", [2, 4, 10])
def test_a_conic_solver_agrees(family, num_tasks):
    problem, linear, radius = dual_data(families(num_tasks, 2, seed=3)[family], 0.4)
    exact = conflict_averse_dual(problem, linear, radius)
    conic = cvxpy_dual(problem, linear, radius)
    rows = zip(problem.values, linear, radius, exact.weights, conic.weights, strict=True)
    for gramian, b, q, ours, theirs in ([part.numpy() for part in row] for row in rows):
        mine, other = (objective(gramian, b, float(q), w) for w in (ours, theirs))
        assert mine <= other + 1e-12 * abs(other)
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-6 * float(q) * np.sqrt(np.diag(gramian).max()))


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_have_a_closed_form(seed):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(2, 4, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [10.0 ** (seed % 5)]])
    M = G @ G.T
    (a, d), (_, b) = M.tolist()
    x = 1.0 if d >= a else 0.0 if d >= b else (b - d) / (a + b - 2 * d)
    torch.testing.assert_close(min_norm_point(M).weights[0].item(), x, atol=1e-13, rtol=1e-12)
    for c in (0.1, 0.4, 0.9):
        q, p = c * np.sqrt((a + b + 2 * d) / 4), (a - b) / 2
        A, B, rho = a + b - 2 * d, d - b, np.sqrt(a * b - d * d) / (a + b - 2 * d)
        if abs(p) >= q * np.sqrt(A):
            x = 0.0 if p > 0 else 1.0
        else:
            x = min(max(-B / A - p * rho / np.sqrt(q * q * A - p * p), 0.0), 1.0)
        found = conflict_averse_dual(M, M.mean(-1), torch.tensor(q)).weights[0].item()
        assert found == pytest.approx(x, abs=1e-9)


def test_the_min_norm_point_is_accurate_relative_to_a_tiny_task():
    """Norms 1 and 1e6: the answer is the short gradient's, to full relative accuracy, not to 1e-16 of the long one."""
    M = torch.tensor([[1e12, 3e5], [3e5, 1.0]], dtype=torch.float64)
    x = (1 - 3e5) / (1e12 + 1 - 6e5)
    assert min_norm_point(M).weights.tolist() == [0.0, 1.0]
    M[0, 1] = M[1, 0] = -3e5
    x = (1 + 3e5) / (1e12 + 1 + 6e5)
    assert min_norm_point(M).weights[0].item() == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-48, 1e-20, 1e20, 1e48])
def test_units_of_the_gramian_do_not_matter(scale):
    M = gramians(families(5, 3)["conflict"])
    linear, radius = M.mean(-1), 0.4 * M.mean((-1, -2)).sqrt()
    torch.testing.assert_close(min_norm_point(M * scale).weights, min_norm_point(M).weights)
    plain = conflict_averse_dual(M, linear, radius)
    scaled = conflict_averse_dual(M * scale, linear * scale, radius * scale**0.5)
    torch.testing.assert_close(scaled.weights, plain.weights, rtol=1e-10, atol=1e-12)


def test_check_dual_tells_optimal_from_other_weights():
    problem, linear, radius = dual_data(families(5, 3)["independent"], 0.4)
    found = conflict_averse_dual(problem, linear, radius)
    again = check_dual(problem, linear, radius, found.weights)
    assert (again.status_code == Status.SOLVED).all()
    uniform = torch.full_like(found.weights, 0.2)
    other = check_dual(problem, linear, radius, uniform)
    assert (other.residual > 1e-3).all()
    assert (other.status_code == Status.INACCURATE).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_its_members_give(family):
    M = gramians(families(5, 6)[family])
    linear, radius = M.mean(-1), 0.4 * M.mean((-1, -2)).clamp_min(0).sqrt()
    batch = conflict_averse_dual(M.view(2, 3, 5, 5), linear.view(2, 3, 5), radius.view(2, 3))
    alone = [conflict_averse_dual(*one) for one in zip(M, linear, radius, strict=True)]
    torch.testing.assert_close(
        batch.weights.view(6, 5), torch.stack([one.weights for one in alone]), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [3, 10, 30])
def test_a_fixed_number_of_steps_gives_the_same_answer(family, num_tasks, monkeypatch):
    """What a GPU does: no early end. Further steps leave a solved problem alone."""
    problem, linear, radius = dual_data(families(num_tasks, 20, seed=4)[family], 0.4)
    early = min_norm_point(problem), conflict_averse_dual(problem, linear, radius)
    monkeypatch.setattr(active_set, "may_ask", lambda flags: False)
    fixed = min_norm_point(problem), conflict_averse_dual(problem, linear, radius)
    for one, other in zip(early, fixed, strict=True):
        solved = other.status_code == Status.SOLVED
        assert solved.double().mean() > 0.8 or family == "condition 1e12"
        apart = lengths(problem, other.weights - one.weights) / (one.weights * problem.norms).sum(-1)
        assert (apart[solved] < 1e-5).all()


def test_answers_are_deterministic_under_ties():
    M = torch.ones(4, 4, dtype=torch.float64)
    first = min_norm_point(M).weights
    assert all(torch.equal(min_norm_point(M).weights, first) for _ in range(3))
    assert first.sum() == 1
