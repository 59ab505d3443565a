"""Projection onto the dual cone: NNLS, a conic solver, closed forms, its conditions, and what combiners make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from mtrl_imgrad.combiners import CAGrad, Status, gramian_diagnostics, make_combiner
from mtrl_imgrad.combiners.solvers import dual_cone
from mtrl_imgrad.combiners.solvers.normalized import normalize
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))
SAFE = [("cagrad", {"c": 0.05}), ("cagrad", {}), ("imgrad", {}), ("pcgrad", {}), ("gradvac", {"beta": 0.5})]
SAFE += [("aligned_mtl", {})]
RADII = [(name, {"c": c}) for name in ("cagrad", "imgrad") for c in (0.05, 0.4)]


def least_gain(gramian, values):
    """Smallest ``g_i . d`` in units of ``|g_i| sum_j |v_j| |g_j|``."""
    norms = gramian.diagonal(dim1=-2, dim2=-1).sqrt()
    gain = (gramian @ values[..., None])[..., 0] / norms
    return (gain / (norms * values.abs()).sum(-1, keepdim=True).clamp_min(1e-300)).amin(-1)


def random_jacobians(num_tasks, count, seed):
    """Norms that differ, and a component along which tasks oppose each other, of random strength."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    common = torch.sign(normal(num_tasks, 1)) * normal(1, 2 * num_tasks) * 2 * normal(1, 1)
    return (normal(num_tasks, 2 * num_tasks) + common) * normal(num_tasks, 1).exp()


def length(gramian, values):
    return (values * (gramian @ values[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [2, 5, 10, 50])
def test_the_conditions_hold(family, num_tasks):
    """Of the mean, and of two combinations with weights of both signs."""
    problem = normalize(gramians(families(num_tasks, 10 if num_tasks < 50 else 2, seed=5)[family]))
    generator = torch.Generator().manual_seed(6)
    parts = torch.randn(*problem.norms.shape[:-1], 3, num_tasks, generator=generator, dtype=torch.float64)
    parts[..., 0, :] = problem.norms / num_tasks
    found = dual_cone.correct(problem.cosines, parts)
    assert found.done.all()
    assert found.residual.max() < 1e-12
    assert (found.added >= 0).all()
    gain = (parts + found.added) @ problem.cosines
    size = (parts.abs() + found.added).sum(-1, keepdim=True)
    assert (gain / size).min() > -1e-12
    assert (torch.where(found.added > 0, gain, 0.0) / size).abs().max() < 1e-12


@pytest.mark.parametrize("family", [name for name in FAMILIES if "1e12" not in name and "thin" not in name])
@pytest.mark.parametrize("num_tasks", [3, 10, 30])
def test_scipy_finds_the_same_projection(family, num_tasks):
    for G in families(num_tasks, 2, seed=7)[family]:
        units = (G / G.norm(dim=1, keepdim=True)).numpy()
        parts = np.stack([G.norm(dim=1).numpy() / G.norm(dim=1).max().item(), np.eye(num_tasks)[0]])
        cosines = torch.from_numpy(units @ units.T)
        ours = dual_cone.correct(cosines, torch.from_numpy(parts)).added.numpy()
        for row, added in zip(parts, ours, strict=True):
            theirs = nnls(units.T, -units.T @ row)[0]
            size = np.abs(row).sum() + added.sum()
            np.testing.assert_allclose((row + added) @ units / size, (row + theirs) @ units / size, atol=1e-7)


@pytest.mark.parametrize("family", ["conflict", "low rank", "opposed", "collinear"])
def test_a_conic_solver_finds_the_same_distance(family):
    import cvxpy as cp

    for G in families(6, 3, seed=8)[family]:
        mean = G.mean(0).numpy()
        d = cp.Variable(G.shape[1])
        cp.Problem(cp.Minimize(cp.sum_squares(d - mean)), [G.numpy() @ d >= 0]).solve(solver=cp.CLARABEL)
        distance = np.linalg.norm(d.value - mean) / np.linalg.norm(mean)
        c_min = gramian_diagnostics(G @ G.T)["c_min"].item()
        assert c_min == pytest.approx(distance, abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "c_min"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[3.0, -4.0]], 0.0),
        # g0 = (1, 1/2); its part along the second, (-1, 1) / sqrt 2, is -1 / sqrt 8.
        ([[3.0, 0.0], [-1.0, 1.0]], np.sqrt(0.125 / 1.25)),
        # Opposed: the cone is a plane orthogonal to both.
        ([[2.0, 0.0], [-1.0, 0.0]], 1.0),
        ([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]], np.sqrt(1 / 10)),
        ([[1.0, 0.0], [-1.0, 0.0]], 0.0),
    ],
)
def test_c_min_by_hand(rows, c_min):
    G = torch.tensor(rows, dtype=torch.float64)
    for scale in (1e-12, 1.0, 1e12):
        assert gramian_diagnostics(scale * G @ G.T)["c_min"].item() == pytest.approx(c_min, abs=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_two_tasks_have_a_closed_form(seed):
    """At most one gradient opposes the mean, and the part of the mean along it is taken away."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(2, 3, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [3.0**seed]])
    mean = G.mean(0)
    lost = (-(G @ mean) / G.norm(dim=1)).clamp_min(0)
    assert (lost > 0).sum() <= 1
    c_min = lost.max() / mean.norm()
    torch.testing.assert_close(gramian_diagnostics(G @ G.T)["c_min"], c_min)
    found = CAGrad(c=0.0, pareto_safe=True, rescale=False)(G)
    torch.testing.assert_close(found.gradient, mean + (lost[:, None] * G / G.norm(dim=1, keepdim=True)).sum(0))
    torch.testing.assert_close(found.extras["c_min"], c_min)


def test_c_min_where_there_is_nothing_to_measure():
    zero, nan = torch.zeros(3, 3), torch.full((3, 3), torch.nan)
    assert gramian_diagnostics(zero)["c_min"] == 0
    assert torch.isfinite(gramian_diagnostics(torch.diag(torch.tensor([1.0, 0.0])))["c_min"])
    assert not gramian_diagnostics(nan)["c_min"] > 0


@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10])
def test_cagrad_harms_a_task_exactly_where_c_is_below_c_min(num_tasks):
    """2400 Gramians and six radii. The least gain is zero at c_min, so just there nothing can be said."""
    M = gramians(random_jacobians(num_tasks, 600, seed=num_tasks))
    c_min = torch.stack([gramian_diagnostics(one)["c_min"] for one in M])
    assert 0.1 < (c_min > 0).double().mean() < 1
    for c in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
        fails = least_gain(M, CAGrad(c=c).weights(M).values) < -1e-12
        clear = (c_min - c).abs() > 1e-9
        assert torch.equal(fails[clear], (c < c_min)[clear])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "arguments"), SAFE, ids=str)
def test_pareto_safe_harms_no_task_and_changes_nothing_else(family, name, arguments):
    for num_tasks in (2, 3, 10, 30):
        M = gramians(families(num_tasks, 4, seed=9)[family])
        # GradVac keeps targets from one Gramian to the next, and takes one at a time.
        for one in M if name == "gradvac" else [M]:
            plain = make_combiner(name, **arguments).weights(one)
            safe = make_combiner(name, **arguments, pareto_safe=True).weights(one)
            assert (least_gain(one, safe.values) > -1e-12).all()
            assert torch.equal(safe.status_code, plain.status_code)
            harmless = least_gain(one, plain.values) >= 0
            assert torch.equal(safe.values[harmless], plain.values[harmless])


def test_the_methods_without_it_do_harm():
    """Or else the test above would show nothing."""
    M = gramians(random_jacobians(10, 40, seed=1))
    for name, arguments in SAFE:
        combiner = make_combiner(name, **arguments)
        assert any(least_gain(one, combiner.weights(one).values) < -1e-3 for one in M)


def test_cagrad_at_c_min_is_the_projection_of_the_mean():
    G = random_jacobians(5, 50, seed=2)
    M, mean = gramians(G), torch.full((50, 5), 0.2, dtype=torch.float64)
    found = CAGrad(c=0.1, pareto_safe=True, rescale=False).weights(M)
    raised = found.extras["c_min"] > 0.1
    assert 5 < raised.sum() < 45
    ratio = length(M, found.values - mean) / length(M, mean)
    torch.testing.assert_close(ratio, found.extras["c_min"].clamp_min(0.1))
    # A radius just above c_min gives nearly the same update: the answer is that of CAGrad, not another method's.
    for one, v, c in zip(M[raised], found.values[raised], found.extras["c_min"][raised], strict=True):
        near = CAGrad(c=c.item() + 1e-7, rescale=False).weights(one).values
        assert length(one, near - v) < 1e-2 * length(one, mean[0])
    rescaled = (
        CAGrad(c=0.1, pareto_safe=True).weights(M).values * (1 + found.extras["c_min"].clamp_min(0.1) ** 2)[:, None]
    )
    torch.testing.assert_close(rescaled, found.values)


@pytest.mark.parametrize("c", [0.1, 0.4, 0.8])
def test_safe_imgrad_stays_within_the_sum_of_the_radii(c):
    M = gramians(random_jacobians(6, 100, seed=3))
    mean = torch.full((100, 6), 1 / 6, dtype=torch.float64)
    c_min = torch.stack([gramian_diagnostics(one)["c_min"] for one in M])
    plain = make_combiner("imgrad", c=c, rescale=False).weights(M).values
    values = make_combiner("imgrad", c=c, rescale=False, pareto_safe=True).weights(M).values
    assert (length(M, values - mean) <= (c + c_min) * length(M, mean) * (1 + 1e-12)).all()
    assert (length(M, values - mean) > c * length(M, mean) * (1 + 1e-9)).any()
    # The projection is the nearest: no point between it and another harmless update is nearer.
    other = make_combiner("mgda").weights(M).values
    for share in (1e-3, 0.1, 1.0):
        between = values + share * (other - values)
        assert (length(M, between - plain) >= length(M, values - plain) * (1 - 1e-12)).all()


def test_a_sum_is_the_mean_times_the_number_of_tasks_when_safe_too():
    M = gramians(random_jacobians(4, 10, seed=4))
    for name in ("cagrad", "imgrad", "pcgrad", "aligned_mtl"):
        mean = make_combiner(name, pareto_safe=True).weights(M).values
        torch.testing.assert_close(make_combiner(name, pareto_safe=True, reduction="sum").weights(M).values, 4 * mean)


@pytest.mark.parametrize(("name", "arguments"), RADII, ids=str)
def test_edge_cases(name, arguments):
    combiner = make_combiner(name, **arguments, pareto_safe=True)
    M = torch.stack([torch.eye(3), torch.full((3, 3), torch.nan), torch.zeros(3, 3)])
    found = combiner.weights(M)
    assert found.status_code.tolist() == [Status.SOLVED, Status.NON_FINITE, Status.ZERO_GRADIENTS]
    assert found.values[1].isnan().all()
    torch.testing.assert_close(found.values[2], torch.full((3,), 1 / 3, dtype=torch.float64))
    # A zero gradient keeps its weight, and does not stand in the way.
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    assert (rows @ combiner(rows).gradient >= -1e-12).all()
    # Nothing helps one of two opposed tasks without harm to the other.
    assert combiner(torch.tensor([[2.0, 1.0], [-1.0, -0.5]])).gradient.norm() < 1e-6


@pytest.mark.parametrize("name", ["cagrad", "imgrad", "aligned_mtl"])
def test_a_batch_and_vmap_give_what_a_loop_gives(name):
    combiner = make_combiner(name, pareto_safe=True)
    M = gramians(random_jacobians(5, 6, seed=5))
    alone = torch.stack([combiner.weights(one).values for one in M])
    torch.testing.assert_close(combiner.weights(M.view(2, 3, 5, 5)).values.view(6, 5), alone)
    torch.testing.assert_close(torch.vmap(lambda one: combiner.weights(one).values)(M), alone)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [5, 20])
def test_a_fixed_number_of_steps_gives_the_same_answer(family, num_tasks, monkeypatch):
    """What a GPU does: no early end."""
    problem = normalize(gramians(families(num_tasks, 3, seed=10)[family]))
    parts = problem.norms[..., None, :] / num_tasks
    early = dual_cone.correct(problem.cosines, parts)
    monkeypatch.setattr(dual_cone, "may_ask", lambda flags: False)
    fixed = dual_cone.correct(problem.cosines, parts)
    assert fixed.done.all()
    assert torch.equal(fixed.added, early.added)
