"""GradNorm against its published step, with the gradient of the weights from autograd and torch's own optimizers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import GradNorm, Status
from mtrl_imgrad.errors import ArgumentError


def rows(seed, num_tasks=4):
    sizes = torch.tensor([1.0, 3.0, 0.2, 10.0], dtype=torch.float64)[:num_tasks, None]
    return sizes * torch.randn(num_tasks, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses(seed, num_tasks=4):
    return 0.2 + torch.rand(num_tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.025), ("sgd", 0.001)])
def test_the_weights_take_the_published_step(optimizer, lr, alpha):
    combiner = GradNorm(alpha, learning_rate=lr, optimizer=optimizer)
    weights = nn.Parameter(torch.ones(4, dtype=torch.float64))
    stepper = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]([weights], lr=lr)
    for step in range(6):
        G, L = rows(step), losses(step)
        found = combiner(G, L)
        torch.testing.assert_close(found.weights, weights.detach() / 4)
        ratios = L / losses(0)
        rates = ratios / ratios.mean()
        sizes = (weights[:, None] * G).norm(dim=1)
        balance = (sizes - (sizes.mean() * rates**alpha).detach()).abs().sum()
        weights.grad = torch.autograd.grad(balance, weights)[0]
        stepper.step()
        with torch.no_grad():
            weights.mul_(4 / weights.sum())
        torch.testing.assert_close(found.extras["rates"], rates)
    torch.testing.assert_close(combiner.state_dict()["weights"], weights.detach())


def test_it_brings_the_norms_together():
    combiner = GradNorm(alpha=0)
    for _ in range(400):
        found = combiner(rows(0), torch.ones(4))
    sizes = (found.weights[:, None] * rows(0)).norm(dim=1)
    assert sizes.max() / sizes.min() < 1.5
    norms = rows(0).norm(dim=1)
    assert norms.max() / norms.min() > 20


def test_the_norms_are_those_at_the_features():
    """Per-task gradients at the representation, in place of the last shared layer of the paper."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 5), [nn.Linear(5, 1) for _ in range(2)]
    features = trunk(torch.randn(7, 3))
    L = [(10**k * head(features) ** 2).mean() for k, head in enumerate(heads)]
    at_features = torch.stack([torch.autograd.grad(loss, features, retain_graph=True)[0].flatten() for loss in L])
    combiner, other = GradNorm(optimizer="sgd", learning_rate=1e-3), GradNorm(optimizer="sgd", learning_rate=1e-3)
    combiner.backward(L, trunk.parameters(), (), features=features)
    other(at_features, torch.stack(L).detach())
    torch.testing.assert_close(combiner.state_dict()["weights"], other.state_dict()["weights"])


def test_losses_without_a_rate_leave_a_finite_answer():
    combiner = GradNorm()
    for L in ([0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 0.0, 1.0], [0.5, -2.0, 1.0, 1.0]):
        found = combiner(rows(1), torch.tensor(L))
        assert found.status == Status.SOLVED
        assert found.gradient.isfinite().all()
    weights = combiner.state_dict()["weights"]
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(4)


def test_one_gramian_at_a_time():
    with pytest.raises(ArgumentError, match="gramian must be"):
        GradNorm().weights(torch.eye(3).expand(2, 3, 3), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "alpha must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of 'adam', 'sgd'"),
    ],
)
def test_a_bad_value_names_the_argument(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        GradNorm(**arguments)
