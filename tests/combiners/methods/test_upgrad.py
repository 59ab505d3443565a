"""UPGrad: projections onto the dual cone against enumeration, their conditions, and what the paper says of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from mtrl_imgrad.combiners import Status, UPGrad
from mtrl_imgrad.combiners.solvers import dual_cone
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))


def projected(rows: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Nearest point of the cone: the best of the projections onto all its faces that lie in it."""
    best, distance = torch.zeros_like(vector), vector.norm()
    units = rows / rows.norm(dim=1, keepdim=True)
    for size in range(len(rows) + 1):
        for face in itertools.combinations(range(len(rows)), size):
            basis = torch.linalg.qr(units[list(face)].T)[0] if size else vector[:, None] * 0
            point = vector - basis @ (basis.T @ vector)
            if (units @ point).min() >= -1e-10 * vector.norm() and (vector - point).norm() < distance:
                best, distance = point, (vector - point).norm()
    return best


@pytest.mark.parametrize("family", ["independent", "conflict", "imbalance 1e6", "square", "half circle", "common"])
@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_it_is_the_mean_of_the_projections(family, num_tasks):
    for G in families(num_tasks, 4)[family]:
        expected = torch.stack([projected(G, row) for row in G]).mean(0)
        size = G.norm(dim=1).max()
        torch.testing.assert_close(UPGrad()(G).gradient / size, expected / size, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10, 50])
def test_no_task_is_harmed(family, num_tasks):
    M = gramians(families(num_tasks, 5 if num_tasks < 50 else 1)[family])
    found = UPGrad().weights(M)
    assert (found.status_code == Status.SOLVED).all()
    assert found.residual.max() < 1e-12
    assert found.values.min() >= 1 / num_tasks - 1e-12
    norms = M.diagonal(dim1=-2, dim2=-1).sqrt()
    gain = (M @ found.values[..., None])[..., 0] / norms
    assert (gain / (found.values * norms).sum(-1, keepdim=True)).min() > -1e-12


@pytest.mark.parametrize("family", ["common", "nearly equal"])
def test_without_conflicts_it_is_the_mean(family):
    M = gramians(families(5, 5)[family]).abs()
    torch.testing.assert_close(UPGrad().weights(M).values, torch.full((5, 5), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(8))
def test_two_tasks_have_a_closed_form(seed):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(2, 3, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [10.0**seed]])
    (a, d), (_, b) = (G @ G.T).tolist()
    expected = [(1 - min(d, 0) / a) / 2, (1 - min(d, 0) / b) / 2]
    torch.testing.assert_close(UPGrad()(G).weights, torch.tensor(expected, dtype=torch.float64))


def test_opposed_gradients_give_no_update():
    found = UPGrad()(torch.tensor([[1.0, 2.0], [-2.0, -4.0]], dtype=torch.float64))
    assert found.status == Status.SOLVED
    assert found.gradient.norm() < 1e-7


def test_gradients_that_surround_zero_give_no_update():
    angles = torch.arange(5, dtype=torch.float64) * (2 * torch.pi / 5)
    found = UPGrad()(torch.stack([angles.cos(), angles.sin()], 1))
    assert found.status == Status.SOLVED
    assert found.gradient.norm() < 1e-7


@pytest.mark.parametrize("num_tasks", [1, 4])
def test_equal_gradients_and_one_task_keep_their_gradient(num_tasks):
    found = UPGrad()(torch.tensor([[3.0, -4.0]]).expand(num_tasks, 2))
    torch.testing.assert_close(found.gradient, torch.tensor([3.0, -4.0]))
    assert found.status == Status.SOLVED


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fixed_number_of_steps_gives_the_same_answer(family, monkeypatch):
    """What a GPU does: no early end."""
    M = gramians(families(10, 5)[family])
    early = UPGrad().weights(M)
    monkeypatch.setattr(dual_cone, "may_ask", lambda flags: False)
    fixed = UPGrad().weights(M)
    assert (fixed.status_code == Status.SOLVED).all()
    norms = M.diagonal(dim1=-2, dim2=-1).sqrt()
    apart = fixed.values - early.values
    length = (apart * (M @ apart[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()
    assert (length / (early.values * norms).sum(-1)).max() < 1e-6
