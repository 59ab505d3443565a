"""CoTBal's weights from tables of scores."""

from __future__ import annotations

import math

import pytest
import torch

from mtrl_imgrad.combiners import CoTBal
from mtrl_imgrad.combiners.methods.cotbal import cotbal_weights
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.loss_oracles import by_hand

MINI = [0.40, 0.50, 0.60, 0.30]
SINGLE = [[0.60, 0.55, 0.58, 0.31], [0.50, 0.70, 0.61, 0.33], [0.38, 0.52, 0.75, 0.29], [0.44, 0.46, 0.60, 0.50]]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_weights_are_the_papers(temperature):
    found = cotbal_weights(MINI, SINGLE, temperature=temperature)
    assert found == pytest.approx(by_hand(MINI, SINGLE, temperature), rel=1e-12)
    assert sum(found) == pytest.approx(4)


def test_shares_choose_what_counts():
    """Only difficulty: one less the ratio of the scores."""
    found = cotbal_weights(MINI, SINGLE, shares=[0, 0, 1])
    powers = [math.exp(1 - few / row[i]) for i, (few, row) in enumerate(zip(MINI, SINGLE, strict=True))]
    assert found == pytest.approx([4 * power / sum(powers) for power in powers])


def test_equal_tasks_weigh_alike_and_one_task_weighs_one():
    assert cotbal_weights([0.5] * 3, [[0.6] * 3] * 3) == pytest.approx([1, 1, 1])
    assert cotbal_weights([0.5], [[0.6]]) == pytest.approx([1])


@pytest.mark.parametrize("own", [0.5, 0.4, 0.5 + 1e-12])
def test_a_task_that_gains_nothing_from_its_own_data_does_not_blow_up(own):
    single = [[0.6, 0.51], [0.5, own]]
    found = cotbal_weights([0.5, 0.5], single, shares=[1, 0, 0])
    gives = [0.01 / (0.01 * own), 0.0]  # task 1's gain counts as 1 % of its score
    powers = [math.exp(value) for value in gives]
    assert found == pytest.approx([2 * power / sum(powers) for power in powers])


def test_absent_tasks_leave_their_share_to_the_others():
    combiner = CoTBal(MINI, SINGLE)
    weights = cotbal_weights(MINI, SINGLE)
    found = combiner.weights(torch.ones(2), [3, 1]).values.tolist()
    assert found == pytest.approx([weights[i] / (weights[1] + weights[3]) for i in (3, 1)])


@pytest.mark.parametrize(("count", "tasks"), [(3, None), (5, None), (2, [0, 4])])
def test_a_task_without_scores_is_refused(count, tasks):
    with pytest.raises(ArgumentError, match="mini must hold a number for each of the tasks"):
        CoTBal(MINI, SINGLE).weights(torch.ones(count), tasks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mini": []}, "mini must hold K scores"),
        ({"mini": MINI[:3]}, r"got 3 and rows of \[4, 4, 4, 4\]"),
        ({"single": SINGLE[0]}, "single must be a sequence"),
        ({"single": [*SINGLE[:3], [0.1]]}, "rows of"),
        ({"mini": [0.1, 0.2, float("nan"), 0.1]}, "mini must be a sequence of finite numbers"),
        ({"mini": ["a", "b", "c", "d"]}, "mini must be a sequence of finite numbers"),
        ({"single": [SINGLE[0], [0.5, 0.0, 0.5, 0.5], *SINGLE[2:]]}, r"single\[1\]\[1\] must be > 0"),
        ({"temperature": 0}, "temperature must be"),
        ({"smallest_gain": -1}, "smallest_gain must be"),
        ({"shares": [0.5, 0.5]}, "shares must be three numbers of sum 1"),
        ({"shares": [0.5, 0.5, 0.5]}, "shares must be three numbers of sum 1"),
        ({"shares": [1.5, -0.5, 0.0]}, "shares must be a sequence of finite numbers >= 0"),
    ],
)
def test_wrong_tables_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        CoTBal(**{"mini": MINI, "single": SINGLE, **arguments})
