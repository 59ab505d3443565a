"""Adam on numbers of tasks, against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners.state.task_adam import TaskAdam
from mtrl_imgrad.errors import ArgumentError

ALWAYS = torch.tensor(True)


def gradients(count: int, num_tasks: int) -> torch.Tensor:
    return torch.randn(count, num_tasks, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_torch(rows: torch.Tensor, first: float, learning_rate: float, weight_decay: float) -> torch.Tensor:
    numbers = torch.full_like(rows[0], first).requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=learning_rate, weight_decay=weight_decay)
    for row in rows:
        numbers.grad = row.clone()
        optimizer.step()
    return numbers.detach()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_numbers_are_those_of_torch(weight_decay):
    rows = gradients(50, 4)
    adam = TaskAdam(-0.5, 0.03, weight_decay)
    for row in rows:
        adam.step(row, None, ALWAYS)
    expected = by_torch(rows, -0.5, 0.03, weight_decay)
    torch.testing.assert_close(adam.numbers(rows[0], None), expected, rtol=1e-12, atol=1e-14)


def test_a_task_counts_its_own_steps():
    rows = gradients(30, 3)
    adam = TaskAdam(0.0, 0.05)
    for step, row in enumerate(rows):
        tasks = [2, 0] if step % 3 == 1 else [0, 1, 2]
        adam.step(row[tasks], tasks, ALWAYS)
    there = torch.tensor([step % 3 != 1 for step in range(30)])
    expected = torch.cat([by_torch(rows[:, :1], 0, 0.05, 0), by_torch(rows[there, 1:2], 0, 0.05, 0)])
    torch.testing.assert_close(adam.numbers(rows[0, :2], [0, 1]), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("where", [torch.tensor(False), torch.tensor([True, False])])
def test_nothing_moves_where_told(where):
    adam = TaskAdam(0.0, 0.05)
    rows = gradients(2, 2)
    adam.step(rows[0], None, ALWAYS)
    before = adam.get_state()
    adam.step(torch.where(where, rows[1], torch.nan), None, where)
    for name, table in adam.get_state().items():
        stays = ~where.expand(2)
        assert torch.equal(table[stays], before[name][stays])
        assert where.any() == (not torch.equal(table, before[name]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0, -1.0), "learning_rate must be a finite number >= 0"), ((0.0, 1.0, float("nan")), "weight_decay must be")],
)
def test_bad_rates(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TaskAdam(*arguments)


def test_a_state_of_other_parts_is_refused():
    with pytest.raises(ArgumentError, match=r"parts \['means', 'numbers', 'squares', 'steps'\]"):
        TaskAdam(0.0, 0.1).set_state({"numbers": torch.zeros(2)})
