"""Nash-MTL and FairGrad: the equation, closed forms, what the papers say of them, and where there is no answer."""

from __future__ import annotations

import math

import pytest
import torch

from mtrl_imgrad.combiners import FairGrad, NashMTL, Status, min_norm_point
from mtrl_imgrad.combiners.solvers import power_fair
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))
SOLVABLE = ["independent", "common", "conflict", "imbalance 1e6", "imbalance 1e9", "square", "duplicates", "collinear"]
SOLVABLE += ["nearly equal"]
"""Families in which no combination of the gradients with weights >= 0 is zero, nor nearly so."""


def product(gramian, weights):
    return (gramian @ weights[..., None])[..., 0]


@pytest.mark.parametrize("family", SOLVABLE)
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 10, 50])
def test_nash_solves_its_equation(family, num_tasks):
    M = gramians(families(num_tasks, 20 if num_tasks < 50 else 5)[family])
    found = NashMTL(max_norm=None).weights(M)
    assert (found.status_code == Status.SOLVED).all()
    assert found.residual.max() < 1e-9
    assert (found.values > 0).all()
    # The same, without the solver's help.
    torch.testing.assert_close(
        found.values * product(M, found.values), torch.ones_like(found.values), rtol=0, atol=1e-8
    )
    torch.testing.assert_close(
        (found.values * product(M, found.values)).sum(-1).sqrt(), M[..., 0, 0] * 0 + num_tasks**0.5
    )


def test_no_other_weights_have_a_higher_product_of_gains():
    """The bargaining solution, by its first definition: the largest sum of log gains on the sphere."""
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    best = NashMTL()(G).gradient
    others = best + 0.3 * torch.randn(5000, 6, generator=generator, dtype=torch.float64)
    others = others / others.norm(dim=1, keepdim=True)
    gains = (others @ G.T).clamp_min(1e-300).log().sum(1)
    assert (gains <= (G @ best).log().sum() + 1e-12).all()


@pytest.mark.parametrize("seed", range(8))
def test_nash_for_two_tasks_has_a_closed_form_along_the_bisector(seed):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(2, 4, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [10.0**seed]])
    norms = G.norm(dim=1)
    cosine = (G[0] @ G[1]) / norms.prod()
    found = NashMTL(max_norm=None)(G)
    torch.testing.assert_close(found.weights, 1 / (norms * (1 + cosine).sqrt()))
    bisector = (G / norms[:, None]).sum(0)
    torch.testing.assert_close(found.gradient / found.gradient.norm(), bisector / bisector.norm())


def test_orthogonal_gradients_decouple():
    M = torch.diag(torch.tensor([1.0, 1e4, 1e-6], dtype=torch.float64))
    torch.testing.assert_close(NashMTL(None).weights(M).values, torch.tensor([1, 1e-2, 1e3], dtype=torch.float64))


def test_scaling_a_task_does_not_change_the_nash_update():
    G = families(5, 1)["conflict"][0]
    scaled = torch.tensor([1.0, 1e-4, 7.0, 1e5, 0.1], dtype=torch.float64)[:, None] * G
    torch.testing.assert_close(NashMTL()(scaled).gradient, NashMTL()(G).gradient)


@pytest.mark.parametrize("max_norm", [0.3, 1, 1.9, 2.1])
def test_clipping_is_a_factor_of_the_weights(max_norm):
    G = families(4, 1)["independent"][0]
    plain, clipped = NashMTL(max_norm=None)(G), NashMTL(max_norm=max_norm)(G)
    assert plain.gradient.norm().item() == pytest.approx(2.0)
    torch.testing.assert_close(clipped.gradient, plain.gradient * min(1.0, max_norm / 2))
    torch.testing.assert_close(clipped.extras["bargaining_weights"], plain.weights)


@pytest.mark.parametrize("max_norm", [0, -1.0, math.inf, math.nan, "1"])
def test_a_norm_must_be_positive(max_norm):
    with pytest.raises(ArgumentError, match="max_norm must be a finite number > 0"):
        NashMTL(max_norm=max_norm)


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_nash_with_one_task_is_the_unit_gradient(max_norm):
    found = NashMTL(max_norm=max_norm)(torch.tensor([[3.0, -4.0]]))
    torch.testing.assert_close(found.gradient, torch.tensor([0.6, -0.8]))
    assert found.status == Status.SOLVED


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_equal_gradients_share_alike(num_tasks):
    G = torch.tensor([[3.0, -4.0]], dtype=torch.float64).expand(num_tasks, 2)
    found = NashMTL()(G)
    torch.testing.assert_close(found.gradient, torch.tensor([0.6, -0.8], dtype=torch.float64))
    torch.testing.assert_close(found.weights, torch.full((num_tasks,), 0.2 / num_tasks, dtype=torch.float64))


@pytest.mark.parametrize("family", ["opposed", "mean zero"])
@pytest.mark.parametrize("num_tasks", [2, 4, 10])
def test_where_there_is_no_bargain_the_status_says_so(family, num_tasks):
    G = families(num_tasks, 5)[family]
    found = NashMTL().weights(gramians(G))
    assert (found.status_code == Status.INACCURATE).all()
    assert (found.residual > 0.1).all()
    assert (found.values > 0).all()
    # With the ridge the weights stay bounded, and what can be balanced is.
    norms = G.norm(dim=-1)
    assert (found.values * norms).max() < 1e6
    assert ((found.values[..., None] * G).sum(-2).norm(dim=-1) <= 1 + 1e-6).all()


def test_an_unsolvable_neighbour_does_no_harm():
    M = torch.stack([torch.eye(2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.eye(2) * 4])
    found = NashMTL(max_norm=None).weights(M)
    assert found.status_code.tolist() == [Status.SOLVED, Status.INACCURATE, Status.SOLVED]
    torch.testing.assert_close(found.values[[0, 2]], torch.tensor([[1.0, 1.0], [0.5, 0.5]]).double())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_a_fixed_number_of_steps_gives_the_same_answer(family, alpha, monkeypatch):
    """What a GPU does: no early end. Further steps leave a solved problem alone."""
    problem = normalize(gramians(families(6, 10)[family]))
    early = power_fair.power_fair(problem, alpha)
    monkeypatch.setattr(power_fair, "may_ask", lambda flags: False)
    fixed = power_fair.power_fair(problem, alpha)
    both = (early.status_code == Status.SOLVED) & (fixed.status_code == Status.SOLVED)
    assert (both == (early.status_code == Status.SOLVED)).all()
    torch.testing.assert_close(fixed.weights[both], early.weights[both], rtol=1e-6, atol=0)


def test_a_solved_answer_never_goes_uphill():
    for family in FAMILIES:
        M = gramians(families(6, 10)[family])
        found = NashMTL().weights(M)
        solved = found.status_code == Status.SOLVED
        assert (product(M, found.values)[solved] > 0).all()


@pytest.mark.parametrize("family", SOLVABLE)
@pytest.mark.parametrize("num_tasks", [2, 5, 10, 50])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 2.0, 3.0])
def test_fairgrad_solves_its_equation(family, num_tasks, alpha):
    if alpha < 0.5 and "imbalance" in family:
        pytest.skip("gains of the smallest tasks are below the rounding of the largest")
    M = gramians(families(num_tasks, 20 if num_tasks < 50 else 5)[family])
    found = FairGrad(alpha).weights(M)
    assert (found.status_code == Status.SOLVED).all()
    assert found.residual.max() < 1e-7
    assert (found.values > 0).all()
    gains = product(M, found.values) * found.values ** (1 / alpha)
    torch.testing.assert_close(gains, torch.ones_like(gains), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", SOLVABLE)
def test_fairgrad_with_alpha_one_is_nash(family):
    M = gramians(families(5, 10)[family])
    assert torch.equal(FairGrad(1.0).weights(M).values, NashMTL(max_norm=None).weights(M).values)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_no_other_update_of_its_length_is_fairer(alpha):
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    best = FairGrad(alpha)(G).gradient
    others = best + 0.3 * best.norm() * torch.randn(5000, 6, generator=generator, dtype=torch.float64)
    others = others * (best.norm() / others.norm(dim=1, keepdim=True))

    def utility(updates):
        gains = updates @ G.T
        total = (gains.clamp_min(0) ** (1 - alpha) / (1 - alpha)).sum(-1)
        return torch.where((gains > 0).all(-1), total, -torch.inf)

    assert (utility(others) <= utility(best) + 1e-12).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_of_uncoupled_tasks_has_a_closed_form(alpha):
    squares = torch.tensor([1.0, 1e4, 1e-6], dtype=torch.float64)
    torch.testing.assert_close(FairGrad(alpha).weights(torch.diag(squares)).values, squares ** (-alpha / (1 + alpha)))
    one = FairGrad(alpha)(torch.tensor([[3.0, -4.0]], dtype=torch.float64))
    torch.testing.assert_close(one.weights, torch.tensor([25 ** (-alpha / (1 + alpha))], dtype=torch.float64))


@pytest.mark.parametrize(("alpha", "expected"), [(1e-3, "mean"), (40.0, "max-min")])
def test_the_ends_of_the_scale_of_fairness(alpha, expected):
    M = gramians(families(4, 5)["common"])
    values = FairGrad(alpha).weights(M).values
    if expected == "mean":
        torch.testing.assert_close(
            values / values.sum(-1, keepdim=True), torch.full_like(values, 0.25), rtol=0.02, atol=0
        )
    else:
        # Max-min fairness on a ball is MGDA's direction, whose least gain is its length.
        shortest = min_norm_point(M).weights
        gains = product(M, values)
        least = gains.amin(-1) / (values * gains).sum(-1).sqrt()
        assert (least > 0.95 * (shortest * product(M, shortest)).sum(-1).sqrt()).all()


@pytest.mark.parametrize("alpha", [0, -1.0, math.inf, math.nan, "1"])
def test_fairness_must_be_positive(alpha):
    with pytest.raises(ArgumentError, match="alpha must be a finite number > 0"):
        FairGrad(alpha)
