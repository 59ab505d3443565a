"""MoCo against its recursion written out on one matrix, and its projection against a general solver."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize

from mtrl_imgrad.combiners import MoCo, make_combiner
from mtrl_imgrad.combiners.state.simplex_table import project_simplex
from mtrl_imgrad.errors import ArgumentError


def rows(seed, num_tasks=4, width=7):
    return torch.randn(num_tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_projection_is_the_nearest_point_of_the_simplex():
    for seed in range(6):
        point = 2 * rows(seed)[:, 0]
        nearest = minimize(
            lambda w, u=point: ((torch.from_numpy(w) - u) ** 2).sum().item(),
            [0.25] * 4,
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        ).x
        torch.testing.assert_close(project_simplex(point), torch.from_numpy(nearest), atol=1e-6, rtol=0)
    inside = torch.tensor([0.2, 0.5, 0.3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(project_simplex(inside), inside)
    assert torch.equal(project_simplex(torch.tensor([5.0, -1.0])), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("normalization", ["none", "loss"])
@pytest.mark.parametrize(("sigma_beta", "sigma_gamma", "rho"), [(0.5, 0.25, 0.0), (0.0, 0.0, 0.3)])
def test_the_recursion_is_the_papers(normalization, sigma_beta, sigma_gamma, rho):
    combiner = MoCo(0.6, 0.05, sigma_beta=sigma_beta, sigma_gamma=sigma_gamma, rho=rho, normalization=normalization)
    Y, w = torch.zeros(4, 7, dtype=torch.float64), torch.full((4,), 0.25, dtype=torch.float64)
    for t in range(1, 7):
        G, L = rows(t), rows(t, 4, 1)[:, 0].abs()
        scaled = G * (L / G.norm(dim=1))[:, None] if normalization == "loss" else G
        Y = Y - 0.6 / t**sigma_beta * (Y - scaled)
        w = w.requires_grad_()
        slope = torch.autograd.grad((w @ Y).square().sum() + rho * w.square().sum(), w)[0]
        w = project_simplex(w.detach() - 0.05 / t**sigma_gamma * slope)
        found = combiner(G, L)
        torch.testing.assert_close(found.extras["simplex_weights"], w)
        torch.testing.assert_close(found.gradient, w @ Y)
    torch.testing.assert_close(combiner.state_dict()["tracked"][0], Y)
    assert found.weights is None


def test_on_constant_gradients_it_goes_to_the_min_norm_point():
    G = torch.tensor([[1, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)
    combiner = MoCo(0.5, 0.05, sigma_beta=0, sigma_gamma=0)
    for _ in range(300):
        found = combiner(G)
    expected = make_combiner("mgda")(G)
    torch.testing.assert_close(found.extras["simplex_weights"], expected.weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.gradient, expected.gradient, atol=1e-6, rtol=0)


def test_present_tasks_divide_their_joint_weight():
    combiner = MoCo(1.0, 0.05)
    combiner(rows(0))
    before = combiner.state_dict()["weights"]
    combiner(rows(1)[[0, 2]], tasks=[0, 2])
    after = combiner.state_dict()["weights"]
    torch.testing.assert_close(after.sum(), before.sum())
    assert torch.equal(after[[1, 3]], before[[1, 3]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0}, r"beta must be a finite number in \(0, 1\]"),
        ({"beta": 1.1}, "beta must be"),
        ({"gamma": -1}, "gamma must be"),
        ({"rho": float("inf")}, "rho must be"),
        ({"sigma_beta": "x"}, "sigma_beta must be"),
        ({"normalization": "l2"}, "normalization must be one of 'none', 'loss'"),
    ],
)
def test_a_bad_value_names_the_argument(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        MoCo(**arguments)


def test_a_loss_below_zero_scales_by_its_size():
    """A negative length would turn the gradient round."""
    G = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    found = MoCo(beta=1.0, gamma=0.0, normalization="loss")(G, torch.tensor([-10.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(found.gradient, torch.tensor([3.0, 5.5], dtype=torch.float64))
