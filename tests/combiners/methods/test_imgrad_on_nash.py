"""IMGrad on Nash-MTL, and IMGrad's own options."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from mtrl_imgrad.combiners import IMGrad, NashMTL, Status, make_combiner
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families, gramians

HARMLESS = ["independent", "common", "conflict", "square", "duplicates", "collinear", "nearly equal", "half circle"]


def published(M: np.ndarray, mu: float, offset: float) -> np.ndarray:
    """The sequence of convex programs, by a conic solver, from the bargaining solution; M of unit mean diagonal."""
    a = NashMTL(max_norm=None).weights(torch.tensor(M)).values.numpy()
    for _ in range(20):
        x = cp.Variable(len(M))
        cost = (offset - mu) * M.sum(1) + mu * (1 / a + M @ (1 / (M @ a)))
        cp.Problem(cp.Minimize(cost @ x), [cp.log(x) + cp.log(M @ x) >= 0]).solve(solver=cp.CLARABEL)
        moved = np.abs(x.value - a).max()
        a = x.value
        if moved < 1e-7 * np.abs(a).max():
            break
    return a


def objective(M: np.ndarray, mu: float, offset: float, a: np.ndarray) -> float:
    return float((offset - mu) * (M @ a).sum() + mu * (np.log(a) + np.log(M @ a)).sum())


@pytest.mark.parametrize("form", ["paper", "authors"])
@pytest.mark.parametrize("num_tasks", [2, 3, 5])
@pytest.mark.parametrize("family", ["independent", "common", "conflict"])
def test_it_is_as_good_as_the_published_programs(family, num_tasks, form):
    offset = {"paper": 1.0, "authors": 1.5}[form]
    for M in gramians(families(num_tasks, 4, seed=3)[family]):
        found = IMGrad(base="nash_mtl", form=form).weights(M)
        assert found.status == Status.SOLVED
        mu = float(found.extras["mu"])
        unit = (M / M.diagonal().mean()).numpy()
        expected = objective(unit, mu, offset, published(unit, mu, offset))
        a = found.values.numpy()
        a = a / np.sqrt((a * (unit @ a)).min())  # to the scale at which the tightest constraint holds with equality
        assert objective(unit, mu, offset, a) <= expected + 1e-5 * (1 + abs(expected))


@pytest.mark.parametrize("num_tasks", [2, 3, 10])
@pytest.mark.parametrize("family", HARMLESS)
def test_every_task_gains_at_least_its_share(family, num_tasks):
    M = gramians(families(num_tasks, 10, seed=1)[family])
    found = IMGrad(base="nash_mtl").weights(M)
    assert (found.extras["surplus"] >= -1e-9).all()
    gains = (M @ found.values[..., None])[..., 0]
    assert (gains > 0).all()
    torch.testing.assert_close((found.values * gains).sum(-1), torch.ones(10, dtype=torch.float64))
    mild = found.extras["surplus"].amax(-1) < 1e-9
    nash = NashMTL().weights(M).values
    torch.testing.assert_close(found.values[mild], nash[mild], rtol=1e-6, atol=0)


def test_imbalance_gives_some_task_more_than_its_share():
    """Otherwise IMGrad on Nash-MTL would be Nash-MTL."""
    M = gramians(families(3, 40, seed=3)["conflict"])
    found = IMGrad(base="nash_mtl", form="paper").weights(M)
    assert (found.extras["surplus"].amax(-1) > 0.1).any()


def test_opposed_gradients_have_no_bargain_and_say_so():
    M = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    found = IMGrad(base="nash_mtl").weights(M)
    assert found.status == Status.INACCURATE
    assert torch.isfinite(found.values).all()


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_scale_of_all_gradients_does_not_matter(scale):
    M = gramians(families(4, 5)["common"])
    combiner = IMGrad(base="nash_mtl")
    torch.testing.assert_close(combiner.weights(scale**2 * M).values * scale, combiner.weights(M).values)


@pytest.mark.parametrize(("size", "expected"), [(1, [0.5]), (3, [1 / 3] * 3)])
def test_one_task_and_no_gradient(size, expected):
    M = 4 * torch.ones(1, 1) if size == 1 else torch.zeros(3, 3)
    found = IMGrad(base="nash_mtl").weights(M)
    torch.testing.assert_close(found.values, torch.tensor(expected, dtype=torch.float64))
    assert found.status == (Status.SOLVED if size == 1 else Status.ZERO_GRADIENTS)


def test_a_zero_gradient_is_left_out():
    M = torch.zeros(3, 3, dtype=torch.float64)
    M[:2, :2] = torch.tensor([[4.0, -1.0], [-1.0, 1.0]])
    found = IMGrad(base="nash_mtl", measure="dc").weights(M)
    assert found.values[2] == 0
    torch.testing.assert_close(found.values[:2], IMGrad(base="nash_mtl", measure="dc").weights(M[:2, :2]).values)


@pytest.mark.parametrize(
    "option",
    [{"c": 0.4}, {"rescale": False}, {"pareto_safe": True}, {"tasks_per_step": 3}, {"official_k2_quirk": True}],
)
def test_an_option_of_the_other_base_is_refused(option):
    with pytest.raises(ArgumentError, match=f"takes no {next(iter(option))}"):
        IMGrad(base="nash_mtl", **option)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ArgumentError, match="official_k2_quirk must go with"):
        IMGrad(form="paper", official_k2_quirk=True)
    with pytest.raises(ArgumentError, match="pareto_safe cannot go with"):
        IMGrad(pareto_safe=True, tasks_per_step=3)


@pytest.mark.parametrize(
    ("c", "weights", "values"),
    [(0.4, [1.0, 0.0], [0.641421, 0.5]), (0.8, [0.552995, 0.447005], [0.892849, 0.817554])],
)
def test_the_two_task_quirk_of_the_authors_code(c, weights, values):
    M = torch.tensor([[4.0, -2.0], [-2.0, 2.0]], dtype=torch.float64)
    found = IMGrad(c, official_k2_quirk=True, rescale=False).weights(M)
    torch.testing.assert_close(found.extras["simplex_weights"].tolist(), weights, rtol=0, atol=2e-6)
    torch.testing.assert_close(found.values.tolist(), values, rtol=0, atol=2e-6)
    swapped = IMGrad(c, official_k2_quirk=True, rescale=False).weights(M.flip(0, 1)).values.flip(0)
    assert not torch.allclose(swapped, found.values), "the order of the tasks matters to it"
    three = gramians(families(3, 1)["common"])[0]
    assert torch.equal(IMGrad(c, official_k2_quirk=True).weights(three).values, IMGrad(c).weights(three).values)


def test_the_two_task_quirk_on_orthonormal_gradients():
    found = [IMGrad(c, official_k2_quirk=True).weights(torch.eye(2)).extras["simplex_weights"] for c in (0.4, 0.8)]
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0]).double())
    torch.testing.assert_close(found[1], torch.tensor([0.9, 0.1]).double(), rtol=0, atol=5e-4)


def test_the_registry_makes_all_of_them():
    assert repr(make_combiner("imgrad", base="nash_mtl", update_every=4)) == "IMGrad(base='nash_mtl', update_every=4)"
