"""ConicGrad against the published program in a conic solver, and its certificate from the gradients themselves."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from mtrl_imgrad.combiners import ConicGrad, Status, make_combiner
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families

WELL_POSED = [name for name in families(2, 1) if name not in ("mean zero", "mean tiny")]


def by_conic_solver(G, c):
    """The largest least gain of a d in the cone with |d| <= |g0|, in units of the largest gradient."""
    G = G / np.linalg.norm(G, axis=1).max()
    mean = G.mean(0)
    length = np.linalg.norm(mean)
    d, t = cp.Variable(G.shape[1]), cp.Variable()
    constraints = [G @ d * (1 / length) >= t, cp.norm(d) <= 1, mean / length @ d >= c * cp.norm(d)]
    cp.Problem(cp.Maximize(t), [G @ d >= t, *constraints[1:]]).solve(solver="CLARABEL")
    return t.value * length


@pytest.mark.parametrize("family", ["independent", "common", "conflict", "square", "low rank", "integers"])
@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_a_conic_solver_finds_no_better_update(family, c):
    for G in families(4, 3, seed=2)[family]:
        found = ConicGrad(c)(G)
        largest = G.norm(dim=1).max()
        gain = (G @ found.gradient).min() / largest**2
        best = by_conic_solver(G.numpy(), c)
        # Where no update of the cone gains on all tasks the solver's is d = 0, and ours the least harm at full length.
        assert gain.item() == pytest.approx(best, abs=1e-5) if best > 1e-6 else gain.item() < 1e-6


@pytest.mark.parametrize("family", WELL_POSED)
@pytest.mark.parametrize("c", [0.0, 0.3, 0.7, 0.95])
def test_the_dual_proves_every_answer(family, c):
    """Least gain of d == the dual's objective at w, both computed from the gradients; d in the cone, as long as g0."""
    for G in families(5, 4)[family]:
        found = ConicGrad(c)(G)
        if found.status == Status.INACCURATE:  # only where gradients cancel
            assert make_combiner("mgda")(G).gradient.norm() < 1e-4 * G.norm(dim=1).max()
            continue
        assert found.residual < 1e-6
        mean, d, w = G.mean(0), found.gradient, found.extras["simplex_weights"]
        point = w @ G
        along = point @ mean / mean.norm()
        across = (point - along * mean / mean.norm()).norm()
        dual = point.norm() if along >= c * point.norm() else c * along + (1 - c * c) ** 0.5 * across
        unit = G.norm(dim=1).max() * mean.norm()
        tolerance = 1e-5 if family in ("imbalance 1e9", "thin half circle", "low rank, imbalance") else 2e-6
        assert abs((G @ d).min() - mean.norm() * dual) / unit < tolerance
        assert d.norm() <= mean.norm() * (1 + 1e-6)
        assert d @ mean >= c * d.norm() * mean.norm() - 1e-6 * mean.norm() ** 2


@pytest.mark.parametrize("family", ["low rank", "opposed", "integers"])
def test_where_the_weighted_gradient_vanishes_u_reaches_what_a_conic_solver_does(family):
    """The program with the part along g0 fixed: max over u across g0, |u| <= sqrt(1 - c^2), of the least gain."""
    c, shorter = 0.3, 0
    for G in families(6, 4, seed=6)[family]:
        found = ConicGrad(c)(G)
        if found.extras["inside"]:
            continue
        unit = G.norm(dim=1).max()
        rows = (G / unit).numpy()
        mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
        u, least = cp.Variable(G.shape[1]), cp.Variable()
        gains = (rows - np.outer(rows @ mean, mean)) @ u + c * rows @ mean
        cp.Problem(cp.Maximize(least), [gains >= least, cp.norm(u) <= (1 - c * c) ** 0.5]).solve(solver="CLARABEL")
        assert found.status == Status.SOLVED
        length = G.mean(0).norm()
        assert float((G @ found.gradient).min() / unit / length) == pytest.approx(least.value, abs=1e-6)
        shorter += bool(found.gradient.norm() < 0.99 * length)
    assert shorter > 0


def test_its_limits_are_the_mean_and_the_direction_of_mgda():
    for G in families(5, 4)["independent"]:
        torch.testing.assert_close(ConicGrad(1.0)(G).gradient, G.mean(0))
        mgda = make_combiner("mgda")(G).gradient
        torch.testing.assert_close(ConicGrad(0.0)(G).gradient, mgda * (G.mean(0).norm() / mgda.norm()))


def test_both_pieces_are_met():
    G = families(4, 60)["conflict"]
    inside = [bool(ConicGrad(0.5)(rows).extras["inside"]) for rows in G]
    assert 5 < sum(inside) < 55


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opposed_parallel_and_cancelling_gradients(dtype):
    e = torch.tensor([1.0, 2.0], dtype=dtype)
    opposed = ConicGrad(0.5)(torch.stack([e, -2 * e]))
    torch.testing.assert_close(opposed.gradient, -0.25 * e, rtol=1e-5, atol=1e-5)  # c g0: across it there is nothing
    parallel = ConicGrad(0.9)(torch.stack([e, 3 * e]))
    torch.testing.assert_close(parallel.gradient, 2 * e)
    cancelling = ConicGrad(0.9)(torch.stack([e, -e]))
    assert cancelling.gradient.norm() < 1e-6
    assert Status.NON_FINITE not in {opposed.status, parallel.status, cancelling.status}


def test_the_unit_of_the_gradients_is_the_unit_of_the_update():
    for G in families(5, 3)["conflict"]:
        for exponent in (-12, 12):
            scaled = ConicGrad()(G * 10.0**exponent).gradient / 10.0**exponent
            torch.testing.assert_close(scaled, ConicGrad()(G).gradient, rtol=1e-9, atol=1e-11)


def test_batches_and_vmap_agree():
    M = torch.stack([G @ G.T for G in families(4, 5)["conflict"]])
    one_by_one = torch.stack([ConicGrad().weights(one).values for one in M])
    torch.testing.assert_close(ConicGrad().weights(M).values, one_by_one)
    torch.testing.assert_close(torch.vmap(lambda one: ConicGrad().weights(one).values)(M), one_by_one)


@pytest.mark.parametrize("c", [-0.1, 1.1, "x", float("nan")])
def test_a_cosine_is_between_zero_and_one(c):
    with pytest.raises(ArgumentError, match="c must be"):
        ConicGrad(c)
