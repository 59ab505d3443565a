"""Laws that hold for all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl_imgrad.combiners import make_combiner

METHODS = ["linear_scalarization", "mgda", "cagrad", "imgrad"]
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 8)
examples = settings(max_examples=25, deadline=None, derandomize=True)


def jacobian(seed: int, num_tasks: int, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, 9, generator=generator, dtype=torch.float64)
    return rows * (spread * torch.randn(num_tasks, 1, generator=generator, dtype=torch.float64)).exp()


def update(name: str, rows: torch.Tensor, **arguments: object) -> torch.Tensor:
    found = make_combiner(name, **arguments)(rows).gradient
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_the_order_of_the_tasks_does_not_matter(name, seed, num_tasks):
    rows = jacobian(seed, num_tasks)
    order = torch.randperm(num_tasks, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(update(name, rows[order]), update(name, rows), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes, exponent=st.integers(-24, 24))
@examples
def test_the_unit_of_the_gradients_is_the_unit_of_the_update(name, seed, num_tasks, exponent):
    rows = jacobian(seed, num_tasks)
    scaled = update(name, rows * 10.0**exponent) / 10.0**exponent
    torch.testing.assert_close(scaled, update(name, rows), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_turning_parameter_space_turns_the_update(name, seed, num_tasks):
    rows = jacobian(seed, num_tasks)
    turn = torch.linalg.qr(jacobian(seed + 1, 9))[0]
    torch.testing.assert_close(update(name, rows @ turn), update(name, rows) @ turn, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_listing_every_task_twice_changes_nothing(name, seed, num_tasks):
    rows = jacobian(seed, num_tasks)
    torch.testing.assert_close(update(name, torch.cat([rows, rows])), update(name, rows), rtol=1e-7, atol=1e-9)


@given(seed=seeds, num_tasks=sizes)
@examples
def test_listing_one_task_twice_does_not_change_the_min_norm_point(seed, num_tasks):
    rows = jacobian(seed, num_tasks)
    twice = torch.cat([rows, rows[:1]])
    torch.testing.assert_close(update("mgda", twice), update("mgda", rows), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_a_zero_gradient_only_dilutes_the_mean(name, seed, num_tasks):
    """The method is applied to the other tasks; whatever is in units of the mean shrinks to K / (K + 1)."""
    rows = jacobian(seed, num_tasks)
    padded = torch.cat([rows, torch.zeros(1, 9, dtype=torch.float64)])
    share = 1.0 if name == "mgda" else num_tasks / (num_tasks + 1)
    torch.testing.assert_close(update(name, padded), share * update(name, rows), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_weights_are_non_negative_and_the_update_is_their_combination(name, seed, num_tasks):
    rows = jacobian(seed, num_tasks, spread=3.0)
    found = make_combiner(name)(rows)
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.gradient, found.weights @ rows)
    assert found.residual < 1e-9


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds, num_tasks=sizes)
@examples
def test_single_precision_gives_nearly_the_same_update(name, seed, num_tasks):
    rows = jacobian(seed, num_tasks, spread=0.3) + 1.0
    single = update(name, rows.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), update(name, rows), rtol=1e-3, atol=1e-4)
