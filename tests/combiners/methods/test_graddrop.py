"""GradDrop against the algorithm written out entry by entry, and its statistics."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import GradDrop
from mtrl_imgrad.combiners.state.randomness import uniform
from mtrl_imgrad.errors import ArgumentError

G = torch.randn(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def entry_by_entry(G, numbers, leak):
    """Algorithm 1 of the paper, lines 10 to 15, as a mean."""
    found = torch.zeros(G.shape[1], dtype=torch.float64)
    for p in range(G.shape[1]):
        purity = 0.5 * (1 + G[:, p].sum() / G[:, p].abs().sum())
        for i in range(G.shape[0]):
            keep = (G[i, p] > 0 and purity > numbers[p]) or (G[i, p] < 0 and purity < numbers[p])
            found[p] += (leak[i] + (1 - leak[i]) * float(keep)) * G[i, p]
    return found / G.shape[0]


@pytest.mark.parametrize("leak", [0.0, 0.3, [0.0, 0.5, 1.0, 0.25]])
def test_every_entry_follows_the_algorithm(leak):
    combiner, generator = GradDrop(leak=leak, seed=5), torch.Generator().manual_seed(5)
    for _ in range(3):
        numbers = uniform(30, torch.device("cpu"), generator)
        expected = entry_by_entry(G, numbers, leak if isinstance(leak, list) else [leak] * 4)
        torch.testing.assert_close(combiner(G).gradient, expected)


def test_the_mean_over_draws_is_the_closed_form():
    combiner = GradDrop(reduction="sum")
    mean = sum(combiner(G).gradient for _ in range(4000)) / 4000
    p, n = G.clamp_min(0).sum(0), -G.clamp_max(0).sum(0)
    deviation = (p * n).sqrt() / 4000**0.5  # of p with probability p / (p + n) against -n
    torch.testing.assert_close(mean, (p * p - n * n) / (p + n), rtol=0, atol=5 * deviation.max().item())


def test_agreeing_tasks_lose_nothing():
    for signed in (G.abs(), -G.abs()):
        torch.testing.assert_close(GradDrop()(signed).gradient, signed.mean(0))


def test_a_full_leak_is_the_mean():
    torch.testing.assert_close(GradDrop(leak=1)(G).gradient, G.mean(0))


def test_leaks_are_by_task():
    combiner = GradDrop(leak=[0.0, 1.0, 0.5])
    torch.testing.assert_close(combiner(G[:1], tasks=[1]).gradient, G[0])
    for tasks in (None, [0, 1, 2, 3]):
        with pytest.raises(ArgumentError, match="leak must hold"):
            combiner(G, tasks=tasks)


@pytest.mark.parametrize("leak", [-0.1, 1.1, "x", [0.5, 2], float("nan")])
def test_a_leak_is_between_zero_and_one(leak):
    with pytest.raises(ArgumentError, match="leak must be"):
        GradDrop(leak=leak)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_without_a_wait():
    rows, combiner = G.cuda(), GradDrop()
    combiner(rows)
    state = combiner.state_dict()
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = combiner.combine(rows).gradient
        combiner.load_state_dict(state)
        second = combiner.combine(rows).gradient
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, second)
