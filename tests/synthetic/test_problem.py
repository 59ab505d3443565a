"""The functions against autograd and their front against brute force."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.synthetic import (
    STARTS,
    check_shares,
    check_starts,
    distance_to_front,
    evaluate,
    front,
    lowest_loss,
    minimiser,
    task_weights,
)


def losses_by_the_paper(x):
    """Both losses of one point ``[2]``, as CAGrad's paper writes them."""
    x1, x2 = x
    low = torch.tensor(5e-6, dtype=torch.float64)
    f1 = torch.clamp((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), low).log() + 6
    f2 = torch.clamp((0.5 * (-x1 + 7) + torch.tanh(-x2)).abs(), low).log() + 6
    c1 = torch.clamp(torch.tanh(x2 * 0.5), 0)
    c2 = torch.clamp(torch.tanh(-x2 * 0.5), 0)
    q1 = ((-x1 + 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    q2 = ((-x1 - 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    return torch.stack([f1 * c1 + q1 * c2, f2 * c1 + q2 * c2])


def points():
    generator = torch.Generator().manual_seed(0)
    spread = 12 * (2 * torch.rand(100, 2, generator=generator, dtype=torch.float64) - 1)
    y = torch.linspace(0.1, 9, 8, dtype=torch.float64)
    ridge = torch.stack([2 * y.tanh() - 7, y], -1)  # where the logarithm of f1 is cut off
    near = torch.tensor([[1e-5, 0.0], [-1e-5, 0.0], [3e-5, 0.0]], dtype=torch.float64)
    edge = torch.tensor([[3.0, 0.0], [-7.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    starts = torch.tensor([*STARTS["five"], *STARTS["three"]], dtype=torch.float64)
    return torch.cat([spread, ridge, (ridge[:, None] + near).flatten(0, 1), edge, starts])


def test_losses_and_gradients_are_those_of_autograd():
    x = points()
    values, jacobian = evaluate(x)
    for k, point in enumerate(x):
        expected = torch.autograd.functional.jacobian(losses_by_the_paper, point)
        torch.testing.assert_close(values[k], losses_by_the_paper(point), rtol=1e-12, atol=1e-12)
        # Near the cut the logarithm's slope is 1 / 1e-5, of a difference of numbers of size 7.
        torch.testing.assert_close(jacobian[k], expected, rtol=1e-9, atol=1e-12)


def test_any_leading_dimensions():
    x = points()[:12]
    values, jacobian = evaluate(x.view(3, 2, 2, 2))
    assert torch.equal(values.view(12, 2), evaluate(x)[0])
    assert torch.equal(jacobian.view(12, 2, 2), evaluate(x)[1])


@pytest.mark.parametrize(
    ("s", "x", "losses"),
    [
        (0.5, (0.0, -8.3551), (-15.0916, -15.0916)),
        (0.9, (5.6, -8.4071), (-19.7935, -4.1205)),
        (0.7, (2.8, -8.3686), None),
        (0.1, (-5.6, -8.4071), (-4.1205, -19.7935)),
        (1.0, (7.0, -8.4345), (-19.9894, -0.3979)),
    ],
)
def test_optima_are_where_they_are_known_to_be(s, x, losses):
    best = minimiser(torch.tensor(s, dtype=torch.float64))
    assert best.tolist() == pytest.approx(x, abs=6e-5)
    if losses:
        assert evaluate(best)[0].tolist() == pytest.approx(losses, abs=6e-5)


@pytest.mark.parametrize("s", [0.1, 0.35])
def test_optimum_is_the_best_of_many_searches(s):
    weights = torch.tensor([s, 1 - s], dtype=torch.float64)

    def weighted(x):
        return float(losses_by_the_paper(torch.tensor(x, dtype=torch.float64)) @ weights)

    grid = [(x1, x2) for x1 in (-9.0, 0.0, 9.0) for x2 in (-9.0, 3.0)]
    found = min((minimize(weighted, start, method="Nelder-Mead") for start in grid), key=lambda result: result.fun)
    best = minimiser(torch.tensor(s, dtype=torch.float64))
    assert weighted(best.tolist()) <= found.fun + 1e-12
    assert best.tolist() == pytest.approx(found.x, abs=1e-3)


def test_no_point_of_a_grid_dominates_the_front():
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    fine = torch.cartesian_prod(torch.linspace(-7, 7, 141).double(), torch.linspace(-8.6, -8.2, 81).double())
    values = evaluate(torch.cat([grid, fine]))[0]
    best = evaluate(front(57))[0]
    dominated = (values[:, None] <= best).all(-1) & (values[:, None] < best - 1e-12).any(-1)
    assert not dominated.any()
    assert float(values.min()) >= lowest_loss() == pytest.approx(-19.98943, abs=1e-5)


def test_no_point_of_a_grid_lies_below_the_front():
    """With the other test: the front is all of the undominated points."""
    grid = torch.cartesian_prod(torch.linspace(-8, 8, 161).double(), torch.linspace(-12, 12, 241).double())
    values, best = evaluate(grid)[0].numpy(), evaluate(front(2001))[0].numpy()[::-1]
    assert (np.diff(best[:, 0]) > 0).all()
    assert (values[:, 1] >= np.interp(values[:, 0], best[:, 0], best[:, 1]) - 1e-5).all()


def test_distance_to_the_front():
    on_it = front(33)
    assert float(distance_to_front(on_it).max()) < 1e-7
    above = on_it + torch.tensor([0.0, 0.5], dtype=torch.float64)
    dense = front(4001)
    probes = torch.cat([above, torch.tensor([[9.0, -8.4], [-7.5, -8.0], [3.0, 9.0]], dtype=torch.float64)])
    expected = torch.cdist(probes, dense).amin(-1)
    torch.testing.assert_close(distance_to_front(probes), expected, rtol=1e-3, atol=1e-6)


def test_scenarios_scale_the_losses():
    assert task_weights((0.9, 0.5)).tolist() == [pytest.approx([0.9, 0.1]), [0.5, 0.5]]


@pytest.mark.parametrize("shares", [(), (0.0,), (1.0,), (0.5, -0.1), (0.5, 0.5), (float("nan"),)])
def test_shares_are_checked(shares):
    with pytest.raises(ArgumentError, match="shares must"):
        check_shares(shares)


@pytest.mark.parametrize("starts", [(), [(1.0, 2.0, 3.0)], [(1.0, float("inf"))], [(1.0,)]])
def test_points_are_checked(starts):
    with pytest.raises(ArgumentError, match="starts must"):
        check_starts(starts)


def test_sets_of_starts_have_names():
    assert len(check_starts("five")) == 5
    assert check_starts([(1, 2)]) == ((1.0, 2.0),)
    with pytest.raises(ArgumentError, match="'five', 'three'"):
        check_starts("four")
