"""Exact and conic solver on random problems that are as bad as float64 allows: objectives, not points, must agree.

The conic solver is the less accurate of the two, so ours must never be worse than it, and where it meets the optimality
conditions itself the two must agree.
"""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.combiners.solvers.choice import solve_bargain, solve_dual, solve_min_norm
from mtrl_imgrad.combiners.solvers.normalized import normalize

cp = pytest.importorskip("cvxpy")

AGREE = 1e-6
"""Relative, of an objective."""
VANISHING = 1e-7
"""A length below this fraction of the summed lengths is rounding error, whoever computes it."""


def problem(index):
    """A normalized Gramian, by turns plain, of low rank, ill-conditioned, conflicting; K, scales, seed from ``index``.

    Norms lie within 24 decades over all problems, and within up to six among the tasks of one.
    """
    generator = torch.Generator().manual_seed(index)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    K = 1 + int(50 * uniform(()) ** 2)
    kind = index % 4
    if kind == 1:
        rows = normal(K, max(1, int(K * uniform(()))))
    elif kind == 2:
        left, right = torch.linalg.qr(normal(K, K))[0], torch.linalg.qr(normal(K, K))[0]
        # The Gramian's condition is the square of the rows'.
        rows = left @ torch.diag(10 ** (-6 * torch.linspace(0, 1, K, dtype=torch.float64))) @ right
    else:
        rows = normal(K, 2 * K)
        if kind == 3:
            rows = rows + 3 * uniform(()) * torch.sign(normal(K, 1)) * normal(1, 2 * K)
    between = 10 ** (6 * uniform(()) * (uniform(K, 1) - 1)) if index % 3 else 1.0
    rows = 10 ** (24 * uniform(()) - 12) * between * rows
    return normalize(rows @ rows.mT)


def length(values, weights):
    return (weights @ values @ weights).clamp_min(0).sqrt()


def simplex_objective(found, data, linear, radius):
    """Value of ``b'w + q |G'w|``, and how far apart two computed values of it may be."""
    norm, size = length(data.values, found.weights), found.weights @ data.norms
    value = linear @ found.weights + radius * norm
    return value, AGREE * value.abs() + VANISHING * radius * size


def min_norm_objective(found, data):
    return simplex_objective(found, data, torch.zeros_like(data.norms), torch.ones_like(data.scale))


def bargain_objective(found, data):
    """``a'Ma / 2 - sum log a`` in units in which the optimum is near K / 2."""
    z = found.weights * data.norms * data.scale.sqrt()
    value = (z @ data.cosines @ z) / 2 - z.log().sum()
    return value, AGREE * (value.abs() + data.num_tasks)


def min_norm(index):
    data = problem(index)
    return partial(solve_min_norm, data), partial(min_norm_objective, data=data)


def dual(index):
    """CAGrad's, and every other time IMGrad's, which weighs the linear term and the radius anew."""
    data = problem(index)
    c, mu = (0.05, 0.4, 0.9)[index % 3], (index % 7) / 7
    rest, share = (1.5 - mu, mu) if index % 2 else (1.0, 1.0)
    linear, radius = rest * data.linear, share * c * data.mean_norm
    return partial(solve_dual, data, linear, radius), partial(
        simplex_objective, data=data, linear=linear, radius=radius
    )


def bargain(index):
    data = problem(index)
    return partial(solve_bargain, data), partial(bargain_objective, data=data)


def conic(solve):
    """The conic solver's answer, or None where it gives up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is inaccurate is what we measure
        try:
            return solve(solver="cvxpy")
        except cp.SolverError:
            return None


def compare(pose, indices):
    """How many were compared, and in how many of them the conic solver, too, was at the optimum."""
    compared = agreed = 0
    for index in indices:
        solve, objective = pose(index)
        exact, other = solve(solver="exact"), conic(solve)
        if other is None or not other.residual.isfinite() or exact.status_code != Status.SOLVED:
            continue
        (ours, tolerance), (theirs, slack) = objective(exact), objective(other)
        compared += 1
        if not theirs.isfinite():
            continue
        assert ours <= theirs + tolerance.maximum(slack), f"problem {index}: {ours} is worse than {theirs}"
        agreed += bool((ours - theirs).abs() <= tolerance.maximum(slack))
    return compared, agreed


CASES = [(min_norm, 0.95, 0.95), (dual, 0.95, 0.95), (bargain, 0.7, 0.95)]
"""Problem, the share to be compared at least (a bargain often does not exist), and that of these which must agree."""


@pytest.mark.parametrize(("pose", "share", "agreeing"), CASES, ids=["min_norm", "dual", "bargain"])
def test_forty_problems(pose, share, agreeing):
    compared, agreed = compare(pose, range(0, 1000, 25))
    assert compared >= share * 40
    assert agreed >= agreeing * compared


@pytest.mark.slow
@pytest.mark.parametrize(("pose", "share", "agreeing"), CASES, ids=["min_norm", "dual", "bargain"])
def test_a_thousand_problems(pose, share, agreeing):
    compared, agreed = compare(pose, range(1000))
    assert compared >= share * 1000
    assert agreed >= agreeing * compared


def test_nash_by_the_conic_solver():
    rows = torch.tensor([[1.0, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)
    exact, other = (make_combiner("nash_mtl", max_norm=None, solver=name)(rows) for name in ("exact", "cvxpy"))
    assert other.status == Status.SOLVED
    torch.testing.assert_close(other.weights, torch.tensor([0.580269, 0.284712, 0.608579]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(other.weights, exact.weights, rtol=1e-4, atol=0)
    # A zero gradient is left out, and what is not finite is not solved.
    batch = torch.stack([torch.diag(torch.tensor([4.0, 0.0])), torch.full((2, 2), torch.nan), torch.zeros(2, 2)])
    found = make_combiner("nash_mtl", max_norm=None, solver="cvxpy").weights(batch)
    assert found.status_code.tolist() == [Status.SOLVED, Status.NON_FINITE, Status.ZERO_GRADIENTS]
    assert found.values[0].tolist() == pytest.approx([0.5, 0.0], abs=1e-4)
