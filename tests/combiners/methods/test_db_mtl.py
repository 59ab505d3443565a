"""DB-MTL: golden vectors, gradients of the logarithm from autograd, the running average written out."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import DBMTL
from mtrl_imgrad.errors import ArgumentError

G3 = torch.tensor([[1, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)
G2 = torch.tensor([[2, 0], [-1, 1]], dtype=torch.float64)


@pytest.mark.parametrize(("G", "expected"), [(G3, (1.414214, 1, 2.108185)), (G2, (1, 1.414214))])
def test_without_memory_norms_are_made_equal(G, expected):
    """Golden vectors, for log-loss gradients: losses of one."""
    found = DBMTL(beta=0, reduction="sum")(G, torch.ones(len(G)))
    torch.testing.assert_close(found.weights, torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_the_recursion_on_gradients_of_the_logarithm(beta, sigma):
    combiner = DBMTL(beta, sigma=sigma, reduction="sum")
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    average = None
    for t in range(1, 6):
        centre = torch.randn(3, 3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        losses = torch.stack([(10.0**k) * ((x - centre[k]) ** 2).sum() for k in range(3)])
        plain = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
        logs = torch.stack([torch.autograd.grad((loss + 1e-8).log(), x, retain_graph=True)[0] for loss in losses])
        share = beta / t**sigma
        average = logs if average is None else share * average + (1 - share) * logs
        norms = average.norm(dim=1)
        expected = sum(norms.max() / norms[k] * average[k] for k in range(3))
        found = combiner(plain, losses.detach())
        torch.testing.assert_close(found.gradient, expected)
        assert (found.weights is None) == (beta > 0)
    assert set(combiner.state_dict()) == ({"averages", "steps"} if beta else set())


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_scale_of_a_loss_does_not_matter(beta):
    plain, scaled = DBMTL(beta), DBMTL(beta)
    units = torch.tensor([1.0, 1e3, 1e-3], dtype=torch.float64)
    for losses in (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.9, 1.5, 2.0])):
        losses = losses.double()
        expected = plain(G3, losses).gradient
        torch.testing.assert_close(scaled(units[:, None] * G3, units * losses).gradient, expected, rtol=1e-4, atol=0)


def test_a_negative_loss_keeps_the_sign_of_its_gradient():
    found = DBMTL(beta=0)(G2, torch.tensor([-4.0, 2.0]))
    assert (found.weights > 0).all()
    lengths = (found.weights[:, None] * G2).norm(dim=1)
    torch.testing.assert_close(lengths[0], lengths[1])


def test_a_task_with_a_zero_gradient_stays_out():
    found = DBMTL(beta=0)(torch.stack([G2[0], 0 * G2[0], G2[1]]), torch.ones(3))
    assert found.weights[1] == 0


@pytest.mark.parametrize("beta", [-0.1, 1, 1.5, "x", float("nan")])
def test_a_rate_is_below_one(beta):
    with pytest.raises(ArgumentError, match="beta must be"):
        DBMTL(beta)
