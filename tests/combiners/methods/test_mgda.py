"""MGDA's normalizations against scaled gradients, and MGDA-UB against a version written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import MGDA, Status
from mtrl_imgrad.errors import ArgumentError

G = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
G = G * torch.tensor([1.0, 5.0, 0.1, 2.0], dtype=torch.float64)[:, None]
LOSSES = torch.tensor([0.5, 2.0, 1.0, 4.0], dtype=torch.float64)


def divisors(normalization):
    norms = G.norm(dim=1)
    return {"none": torch.ones_like(norms), "l2": norms, "loss": LOSSES, "loss+": LOSSES * norms}[normalization]


@pytest.mark.parametrize("combine_normalized", [False, True])
@pytest.mark.parametrize("normalization", ["none", "l2", "loss", "loss+"])
def test_the_min_norm_point_is_sought_among_scaled_gradients(normalization, combine_normalized):
    n = divisors(normalization)
    w = MGDA()(G / n[:, None]).weights
    found = MGDA(normalization, combine_normalized=combine_normalized)(G, LOSSES)
    torch.testing.assert_close(found.weights, w / n if combine_normalized else w)
    torch.testing.assert_close(found.gradient, found.weights @ G)
    assert found.status == Status.SOLVED
    if combine_normalized:
        gains = (G / n[:, None]) @ found.gradient
        assert (gains >= found.gradient @ found.gradient - 1e-12).all()


@pytest.mark.parametrize("normalization", ["l2", "loss", "loss+"])
def test_batches_and_vmap_agree(normalization):
    combiner = MGDA(normalization)
    M, L = torch.stack([G @ G.T, 4 * G @ G.T + torch.eye(4)]), torch.stack([LOSSES, LOSSES.flip(0)])
    one_by_one = torch.stack([combiner.weights(m, loss).values for m, loss in zip(M, L, strict=True)])
    torch.testing.assert_close(combiner.weights(M, L).values, one_by_one)
    torch.testing.assert_close(torch.vmap(lambda m, loss: combiner.weights(m, loss).values)(M, L), one_by_one)


def test_zero_gradients_and_losses():
    found = MGDA("l2")(torch.cat([G, 0 * G[:1]]))
    assert found.weights[-1] == 0
    torch.testing.assert_close(found.weights[:-1], MGDA("l2")(G).weights)
    assert MGDA("loss+")(torch.zeros(3, 2), torch.ones(3)).status == Status.ZERO_GRADIENTS
    done = MGDA("loss")(G, torch.tensor([0.0, 1.0, 1.0, 1.0]))  # its scaled gradient is immense
    assert done.status == Status.SOLVED
    assert done.weights[0] < 1e-3
    torch.testing.assert_close(MGDA("loss")(G, torch.zeros(4)).weights, MGDA()(G).weights)


def test_at_the_representation_it_is_mgda_ub():
    """Sener and Koltun's upper bound: weights from the gradients at the features, then one backward."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh()).double()
    heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(3)).double()
    inputs, targets = torch.randn(10, 4, dtype=torch.float64), torch.randn(3, 10, 1, dtype=torch.float64)

    def losses(features):
        return [((head(features) - target) ** 2).mean() for head, target in zip(heads, targets, strict=True)]

    features = trunk(inputs)
    cut = features.detach().requires_grad_()
    Z = torch.stack([torch.autograd.grad(loss, cut)[0].flatten() for loss in losses(cut)])
    w = MGDA("l2")(Z).weights
    weighted = sum(weight * loss for weight, loss in zip(w, losses(trunk(inputs)), strict=True))
    expected = torch.autograd.grad(weighted, list(trunk.parameters()))

    calls = []
    trunk[0].weight.register_hook(calls.append)
    found = MGDA("l2").backward(losses(features), trunk.parameters(), heads.parameters(), features=features)
    torch.testing.assert_close(found.weights, w)
    for parameter, gradient in zip(trunk.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert len(calls) == 1


@pytest.mark.parametrize("normalization", ["norm", None, 1])
def test_a_bad_normalization_lists_the_accepted(normalization):
    with pytest.raises(ArgumentError, match="normalization must be one of 'none', 'l2', 'loss', 'loss\\+'"):
        MGDA(normalization)
