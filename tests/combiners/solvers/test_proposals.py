"""The quick methods for one problem on a CPU: used where they should be, harmless where they are wrong."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.combiners.solvers import active_set, power_fair
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))
REGULAR = ["independent", "common", "conflict", "square", "nearly equal"]
"""Families on which the quick methods find the answer, so that the solvers have nothing to do but check it."""
DEGENERATE = ["opposed", "mean zero", "mean tiny", "half circle", "thin half circle"]
METHODS = ["mgda", "cagrad", "imgrad", "nash_mtl"]


def no_proposal(method, *data):
    return None


def refuse(*anything):
    raise AssertionError("not to be called")


@pytest.mark.parametrize("family", REGULAR)
@pytest.mark.parametrize("num_tasks", [2, 3, 10, 50])
def test_they_do_the_work_where_gradients_are_independent(family, num_tasks, monkeypatch):
    monkeypatch.setattr(active_set, "Systems", refuse)
    monkeypatch.setattr(power_fair, "_step", refuse)
    for M in gramians(families(num_tasks, 3, seed=11)[family]):
        for name in METHODS:
            assert make_combiner(name).weights(M).status == Status.SOLVED


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_answers_are_the_same_without_them(family, name, monkeypatch):
    for num_tasks in (2, 3, 10, 30):
        rows = families(num_tasks, 2, seed=12)[family]
        quick = [make_combiner(name)(G) for G in rows]
        with monkeypatch.context() as patch:
            patch.setattr(active_set, "find_candidate", no_proposal)
            patch.setattr(power_fair, "find_candidate", no_proposal)
            plain = [make_combiner(name)(G) for G in rows]
        for G, one, other in zip(rows, quick, plain, strict=True):
            assert one.status == other.status
            if one.status == Status.SOLVED:
                # Where the optimum is nearly zero its direction hangs on rounding; nothing but the residual is sure.
                size = (one.weights * G.norm(dim=1)).sum()
                tolerance = 1e-7 if family not in DEGENERATE else 1e-3
                assert (one.gradient - other.gradient).norm() < tolerance * size


def proposals_of_no_use(K):
    """For the minimum: [K + 1], y and the objective it is said to have."""
    y = torch.ones(K, dtype=torch.float64) / K
    yield torch.cat([y, y[:1]])
    yield torch.cat([y, -y[:1]])
    yield torch.cat([-y, y[:1]])
    yield torch.zeros(K + 1, dtype=torch.float64)
    yield torch.full((K + 1,), torch.nan, dtype=torch.float64)
    yield torch.full((K + 1,), 1e200, dtype=torch.float64)


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imgrad"])
def test_a_wrong_proposal_changes_nothing(name, monkeypatch):
    for M in gramians(families(5, 3, seed=13)["conflict"]):
        monkeypatch.setattr(active_set, "find_candidate", no_proposal)
        expected = make_combiner(name).weights(M)
        for wrong in proposals_of_no_use(5):
            monkeypatch.setattr(active_set, "find_candidate", lambda *data, wrong=wrong: wrong)
            found = make_combiner(name).weights(M)
            assert torch.equal(found.values, expected.values)
            assert torch.equal(found.residual, expected.residual)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_wrong_start_leads_to_the_same_bargain(size, monkeypatch):
    M = gramians(families(6, 1, seed=14)["conflict"])[0]
    expected = make_combiner("nash_mtl").weights(M)
    start = size * torch.arange(1, 7, dtype=torch.float64)
    monkeypatch.setattr(power_fair, "find_candidate", lambda *data: start)
    found = make_combiner("nash_mtl").weights(M)
    assert found.status == Status.SOLVED
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_batches_and_transformed_functions_get_none(name, monkeypatch):
    monkeypatch.setattr(active_set, "find_candidate", refuse)
    monkeypatch.setattr(power_fair, "find_candidate", refuse)
    combiner = make_combiner(name)
    M = gramians(families(4, 3)["conflict"])
    transformed = torch.vmap(lambda one: combiner.weights(one).values)(M)
    torch.testing.assert_close(combiner.weights(M).values, transformed, rtol=1e-6, atol=1e-9)
    assert combiner.weights(torch.empty(4, 4, device="meta")).values.shape == (4,)


@pytest.mark.parametrize("name", METHODS)
def test_inside_a_gradient_of_torch_func(name):
    """Weights are constants there, whose numbers cannot be had outside PyTorch."""
    M = gramians(families(4, 1)["conflict"])[0]
    found = torch.func.grad(lambda one: (make_combiner(name).weights(one).values * one.diagonal()).sum())(M)
    torch.testing.assert_close(found, torch.diag(make_combiner(name).weights(M).values), rtol=1e-9, atol=1e-12)
