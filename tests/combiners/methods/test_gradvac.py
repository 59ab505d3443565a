"""GradVac: turns by coefficients against the plain procedure on vectors, its targets, and its state."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mtrl_imgrad.combiners import GradVac, PCGrad, Status
from mtrl_imgrad.combiners.state.randomness import random_orders
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from tests.support.combiners.gradient_problems import families


def on_vectors(rows, targets, orders, beta):
    """The procedure of the paper, word by word; changes ``targets``."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders.tolist()):
        part = rows[i].clone()
        for j in order:
            if j == i:
                continue
            cosine = (part @ rows[j] / (part.norm() * rows[j].norm())).item()
            target = targets[i, j].item()
            if cosine < target:
                numerator = part.norm() * (target * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - target**2))
                part += numerator / (rows[j].norm() * math.sqrt(1 - target**2)) * rows[j]
                reached = part @ rows[j] / (part.norm() * rows[j].norm())
                assert reached.item() == pytest.approx(target, abs=1e-9)
            targets[i, j] = (1 - beta) * target + beta * cosine
        total += part
    return total / len(rows)


@pytest.mark.parametrize("family", ["independent", "common", "conflict", "imbalance 1e6"])
@pytest.mark.parametrize("num_tasks", [2, 3, 8])
def test_coefficients_do_what_turning_vectors_does(family, num_tasks):
    combiner = GradVac(beta=0.5, seed=7)
    generator = torch.Generator().manual_seed(7)
    targets = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
    for rows in families(num_tasks, 6)[family]:
        orders = random_orders(rows @ rows.T, generator)
        expected = on_vectors(rows, targets, orders, 0.5)
        size = rows.norm(dim=1).max()
        torch.testing.assert_close(combiner(rows).gradient / size, expected / size, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(combiner.state_dict()["targets"], targets, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", ["independent", "conflict", "imbalance 1e9", "low rank", "integers"])
def test_targets_that_stay_at_zero_make_it_pcgrad(family):
    vaccine, surgery = GradVac(beta=0, seed=3), PCGrad(seed=3)
    for rows in families(6, 4)[family]:
        M = rows @ rows.T
        torch.testing.assert_close(vaccine.weights(M).values, surgery.weights(M).values, rtol=1e-9, atol=1e-12)


def test_a_state_continues_bit_for_bit():
    G = families(5, 4)["conflict"]
    combiner = GradVac(beta=0.3)
    combiner(G[0])
    others = [GradVac(beta=0.3, seed=9), copy.deepcopy(combiner)]
    others[0].load_state_dict(combiner.state_dict())
    for rows in G[1:]:
        expected = combiner(rows).gradient
        assert all(torch.equal(other(rows).gradient, expected) for other in others)
    fresh = GradVac()
    fresh.load_state_dict(GradVac(seed=4).state_dict())
    assert fresh.state_dict()["targets"] is None


@pytest.mark.parametrize("state", [{}, {"generator": 1, "targets": None}, {"targets": None}])
def test_a_wrong_state_is_refused(state):
    with pytest.raises(ArgumentError, match="the state of"):
        GradVac().load_state_dict(state)
    with pytest.raises(ArgumentError, match="targets"):
        GradVac().load_state_dict({**GradVac().state_dict(), "targets": torch.zeros(2, 3)})


def test_steps_without_usable_gradients_leave_the_targets_alone():
    G = families(4, 1)["conflict"][0]
    combiner = GradVac(beta=0.5)
    combiner(G)
    targets = combiner.state_dict()["targets"]
    assert combiner(torch.zeros(4, 3)).status == Status.ZERO_GRADIENTS
    bad = G.clone()
    bad[1, 0] = torch.nan
    found = combiner.combine(bad)
    assert found.status == Status.NON_FINITE
    assert found.weights.isnan().all()
    with pytest.raises(NonFiniteError, match="task 1"):
        combiner(bad)
    assert torch.equal(combiner.state_dict()["targets"], targets)
    one_zero = G.clone()
    one_zero[2] = 0
    found = combiner(one_zero)
    assert found.weights[2].item() == pytest.approx(0.25)
    after = combiner.state_dict()["targets"]
    assert torch.equal(after[2], targets[2])
    assert torch.equal(after[:, 2], targets[:, 2])
    assert not torch.equal(after[0], targets[0])


def test_one_equal_and_opposed_tasks():
    row = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(GradVac()(row).gradient, row[0])
    combiner = GradVac(beta=1.0)
    for _ in range(3):
        torch.testing.assert_close(combiner(row.expand(3, 2)).gradient, row[0], rtol=1e-2, atol=0)
    found = GradVac()(torch.cat([row, -2 * row]))
    assert found.gradient.norm() < 1e-5
    opposed_after_equal = combiner(torch.cat([row, -2 * row, row]))
    assert opposed_after_equal.gradient.isfinite().all()


@pytest.mark.parametrize("exponent", [-9, 9])
def test_the_unit_of_the_gradients_is_the_unit_of_the_update(exponent):
    G = families(5, 1)["conflict"][0]
    torch.testing.assert_close(GradVac()(G * 10.0**exponent).gradient / 10.0**exponent, GradVac()(G).gradient)


def test_a_task_may_be_absent_and_its_targets_wait():
    G = families(4, 1)["conflict"][0]
    combiner = GradVac(beta=0.5)
    combiner(G)
    before = combiner.state_dict()["targets"]
    combiner(G[[3, 1]], tasks=[3, 1])
    after = combiner.state_dict()["targets"]
    moved = before != after
    assert moved[1, 3]
    assert moved[3, 1]
    assert int(moved.sum()) == 2
    combiner(G[:1], tasks=[6])
    assert combiner.state_dict()["targets"].shape == (7, 7)


def test_batches_are_refused():
    combiner = GradVac()
    with pytest.raises(ArgumentError, match="gramian must be"):
        combiner.weights(torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan, "x"])
def test_a_rate_is_between_zero_and_one(beta):
    with pytest.raises(ArgumentError, match="beta must be a finite number in"):
        GradVac(beta=beta)
