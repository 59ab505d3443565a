"""PCGrad: projections by coefficients against the plain procedure on vectors, and its generator."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from mtrl_imgrad.combiners import PCGrad, Status, make_combiner
from mtrl_imgrad.combiners.state.randomness import random_orders
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))


def on_vectors(rows: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """The procedure of the paper, word by word."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders.tolist()):
        part = rows[i].clone()
        for j in order:
            product = part @ rows[j]
            if j != i and product < 0:
                part -= product / (rows[j] @ rows[j]) * rows[j]
        total += part
    return total / len(rows)


@pytest.mark.parametrize("family", ["independent", "conflict", "imbalance 1e6", "low rank", "opposed", "mean zero"])
@pytest.mark.parametrize("num_tasks", [2, 3, 10])
def test_coefficients_do_what_projecting_vectors_does(family, num_tasks):
    for rows in families(num_tasks, 5)[family]:
        orders = random_orders(rows @ rows.T, torch.Generator().manual_seed(7))
        found = PCGrad(seed=7)(rows)
        size = rows.norm(dim=1).max()
        torch.testing.assert_close(found.gradient / size, on_vectors(rows, orders) / size, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_have_a_closed_form_and_end_without_conflict(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 3, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [1e3]])
    (a, d), (_, b) = (rows @ rows.T).tolist()
    expected = [(1 - d / a) / 2, (1 - d / b) / 2] if d < 0 else [0.5, 0.5]
    found = PCGrad()(rows)
    torch.testing.assert_close(found.weights, torch.tensor(expected).double())
    assert found.extras["projections"] == (2 if d < 0 else 0)
    assert not found.diagnostics["pareto_failure"]


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_conflicts_it_is_the_mean(shuffle):
    M = gramians(families(6, 4)["nearly equal"])
    found = PCGrad(shuffle).weights(M)
    torch.testing.assert_close(found.values, torch.full((4, 6), 1 / 6, dtype=torch.float64))
    assert (found.extras["projections"] == 0).all()


def test_every_order_is_as_likely_and_a_task_meets_all_others():
    orders = random_orders(torch.empty(3000, 3, 3), torch.Generator().manual_seed(0))
    assert (orders.sort(-1).values == torch.arange(3)).all()
    codes = (orders * torch.tensor([9, 3, 1])).sum(-1).flatten()
    counts = torch.unique(codes, return_counts=True)[1]
    assert len(counts) == 6
    assert (counts - 1500).abs().max() < 150


def test_the_seed_decides_and_orders_change_from_call_to_call():
    M = gramians(families(6, 1)["conflict"])[0]
    first, second = PCGrad(seed=1), PCGrad(seed=1)
    answers = [first.weights(M).values for _ in range(3)]
    assert all(torch.equal(second.weights(M).values, answer) for answer in answers)
    assert not torch.equal(answers[0], answers[1])
    assert not torch.equal(PCGrad(seed=2).weights(M).values, answers[0])
    fixed = PCGrad(shuffle=False)
    assert torch.equal(fixed.weights(M).values, fixed.weights(M).values)


@pytest.mark.parametrize("way", ["state", "deepcopy", "pickle"])
def test_a_state_continues_bit_for_bit(way):
    M = gramians(families(6, 1)["conflict"])[0]
    combiner = PCGrad(seed=5)
    combiner.weights(M)
    if way == "state":
        other = PCGrad(seed=99)
        other.load_state_dict(combiner.state_dict())
    else:
        other = copy.deepcopy(combiner) if way == "deepcopy" else pickle.loads(pickle.dumps(combiner))
    for _ in range(3):
        assert torch.equal(other.weights(M).values, combiner.weights(M).values)


def test_a_wrong_state_is_refused():
    assert PCGrad(shuffle=False).state_dict() == {}
    PCGrad(shuffle=False).load_state_dict({})
    for state in ({}, {"step": 1}, {"generator": 3}, {"generator": torch.zeros(3, dtype=torch.uint8)}):
        with pytest.raises(ArgumentError, match="state of"):
            PCGrad().load_state_dict(state)
    with pytest.raises(ArgumentError, match="keeps no state"):
        PCGrad(shuffle=False).load_state_dict(PCGrad().state_dict())


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_a_seed_must_be_a_number(seed):
    with pytest.raises(ArgumentError, match="seed must be"):
        PCGrad(seed=seed)


def test_a_batch_draws_what_its_members_draw_one_after_the_other():
    M = gramians(families(5, 6)["conflict"])
    together, alone = PCGrad(seed=3), PCGrad(seed=3)
    looped = torch.stack([alone.weights(one).values for one in M])
    torch.testing.assert_close(together.weights(M.view(2, 3, 5, 5)).values.view(6, 5), looped)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_are_at_least_those_of_the_mean(family):
    """Projecting only ever adds multiples of the task that is conflicted with."""
    found = make_combiner("pcgrad").weights(gramians(families(7, 10)[family]))
    assert found.values.min() >= 1 / 7 - 1e-15
    assert (found.status_code == Status.SOLVED).all()
