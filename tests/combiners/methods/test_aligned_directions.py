"""IMTL-G, ConFIG and Aligned-MTL: their definitions, closed forms, and how they stand to each other and to Nash-MTL."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import IMTLG, AlignedMTL, ConFIG, NashMTL, Status
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))
REGULAR = ["independent", "common", "conflict", "imbalance 1e6", "square"]
"""Families of independent gradients."""
OPPOSED = torch.tensor([[1.0, 2.0], [-2.0, -4.0]], dtype=torch.float64)


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def spread(values):
    return values.amax(-1) - values.amin(-1)


@pytest.mark.parametrize("family", REGULAR)
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10, 50])
def test_imtl_g_has_equal_projections_and_weights_of_sum_one(family, num_tasks):
    for G in families(num_tasks, 10 if num_tasks < 50 else 3)[family]:
        found = IMTLG()(G)
        assert found.status == Status.SOLVED
        assert found.residual < 1e-13
        assert found.weights.sum().item() == pytest.approx(1.0, abs=1e-9 * found.weights.abs().sum().item())
        size = (found.weights.abs() * G.norm(dim=1)).sum()
        assert spread(unit(G) @ found.gradient) / size < 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_two_tasks_bisector(seed):
    """IMTL-G, ConFIG and Nash-MTL agree on the direction and differ in length."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(2, 4, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [10.0**seed]])
    bisector = unit(unit(G).sum(0))
    for method in (IMTLG(), ConFIG(), NashMTL()):
        torch.testing.assert_close(unit(method(G).gradient), bisector, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(IMTLG()(G).weights, 1 / G.norm(dim=1) / (1 / G.norm(dim=1)).sum())
    torch.testing.assert_close(ConFIG()(G).gradient.norm(), (G @ bisector).mean(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("family", REGULAR)
@pytest.mark.parametrize("num_tasks", [3, 5, 10])
def test_independent_gradients_make_config_and_imtl_g_parallel_but_not_nash(family, num_tasks):
    apart = []
    for G in families(num_tasks, 10)[family]:
        config, imtl, nash = (unit(method(G).gradient) for method in (ConFIG(), IMTLG(), NashMTL()))
        assert (config @ imtl).abs().item() == pytest.approx(1.0, abs=1e-9)
        apart.append(1 - (config @ nash).item())
    assert max(apart) > 1e-3


@pytest.mark.parametrize("family", REGULAR)
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5, 10, 50])
def test_config_has_equal_positive_cosines_and_the_stated_length(family, num_tasks):
    for G in families(num_tasks, 10 if num_tasks < 50 else 3)[family]:
        found = ConFIG()(G)
        cosines = unit(G) @ unit(found.gradient)
        assert found.status == Status.SOLVED
        assert spread(cosines) < 1e-8
        assert cosines.min() > 0
        assert not found.diagnostics["pareto_failure"]
        length = (G @ unit(found.gradient)).mean()
        torch.testing.assert_close(found.gradient.norm(), length, rtol=1e-8, atol=0)


@pytest.mark.parametrize("family", ["independent", "low rank", "duplicates", "opposed", "integers"])
def test_config_is_the_papers_pseudo_inverse(family):
    for G in families(5, 10)[family]:
        direction = torch.linalg.pinv(unit(G), rtol=1e-7) @ torch.ones(5, dtype=torch.float64)
        found = ConFIG()(G)
        if direction.norm() < 1e-6:
            assert found.gradient.norm() < 1e-6
            continue
        expected = unit(direction) * (G @ unit(direction)).mean()
        torch.testing.assert_close(found.gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 6, 20])
def test_aligned_gradients_are_orthogonal_and_equally_long(scale_mode, num_tasks):
    """Against singular vectors of the gradients themselves."""
    for G in families(num_tasks, 5)["common"]:
        left, values, right = torch.linalg.svd(G, full_matrices=False)
        squares = values**2
        length = {"min": squares.min(), "median": squares.median(), "rmse": squares.mean()}[scale_mode].sqrt()
        found = AlignedMTL(scale_mode)(G)
        torch.testing.assert_close(found.gradient, length * (left @ right).mean(0), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(found.extras["condition"], values[0] / values[-1])
        assert found.residual < 1e-9


def test_aligned_drops_directions_that_are_not_there():
    for G in families(6, 5)["low rank"]:
        left, values, right = torch.linalg.svd(G, full_matrices=False)
        found = AlignedMTL()(G)
        torch.testing.assert_close(found.gradient, values.min() * (left @ right).mean(0), rtol=1e-7, atol=1e-9)
        assert found.status == Status.SOLVED


def test_aligned_leaves_orthogonal_equally_long_gradients_alone():
    for mode in ("min", "median", "rmse"):
        found = AlignedMTL(mode)(3 * torch.eye(4, dtype=torch.float64))
        torch.testing.assert_close(found.weights, torch.full((4,), 0.25, dtype=torch.float64))


def test_a_scale_mode_must_be_known():
    with pytest.raises(ArgumentError, match="scale_mode must be one of 'min', 'median', 'rmse', got 'max'"):
        AlignedMTL("max")


@pytest.mark.parametrize("method", [IMTLG, ConFIG, AlignedMTL])
def test_one_task_keeps_its_gradient(method):
    found = method()(torch.tensor([[3.0, -4.0]]))
    torch.testing.assert_close(found.gradient, torch.tensor([3.0, -4.0]))
    assert found.status == Status.SOLVED


@pytest.mark.parametrize("method", [IMTLG, ConFIG])
def test_opposed_gradients_give_no_update(method):
    found = method()(OPPOSED)
    assert found.status == Status.SOLVED
    assert found.gradient.norm() < 1e-12


def test_opposed_gradients_are_one_direction_to_aligned_mtl():
    """Gradients of rank one have condition number one already and stay as they are."""
    found = AlignedMTL()(OPPOSED)
    assert found.status == Status.SOLVED
    torch.testing.assert_close(found.gradient, OPPOSED.mean(0))


@pytest.mark.parametrize("method", [IMTLG, ConFIG, AlignedMTL])
def test_equal_gradients_share_alike(method):
    G = torch.tensor([[3.0, -4.0]], dtype=torch.float64).expand(4, 2)
    found = method()(G)
    torch.testing.assert_close(found.weights, torch.full((4,), 0.25, dtype=torch.float64))


def test_imtl_g_says_where_no_weights_of_sum_one_exist():
    """The third task is made so long that the weights with equal projections sum to zero."""
    C = torch.tensor([[1.0, 0.0, 0.8], [0.0, 1.0, 0.8], [0.8, 0.8, 1.6]], dtype=torch.float64)
    C = C / (C.diagonal()[:, None] * C.diagonal()).sqrt()
    z = torch.linalg.solve(C, torch.ones(3, dtype=torch.float64))
    assert z[2] < 0 < z[0]
    norms = torch.stack([torch.tensor(1.0).double(), torch.tensor(1.0).double(), -z[2] / (z[0] + z[1])])
    found = IMTLG().weights(C * norms[:, None] * norms)
    assert found.status == Status.INACCURATE
    assert found.residual > 1e-2
    torch.testing.assert_close(found.values, torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_certificates(family, num_tasks):
    M = gramians(families(num_tasks, 10)[family])
    assert (ConFIG().weights(M).residual < 1e-9).all()
    imtl = IMTLG().weights(M)
    assert (imtl.residual[imtl.status_code == Status.SOLVED] < 1e-9).all()
    aligned = AlignedMTL().weights(M)
    assert ((aligned.residual < 1e-6) == (aligned.status_code == Status.SOLVED)).all()
