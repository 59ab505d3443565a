"""What a caller's surroundings do not change: autocast, the default device, the default dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners import make_combiner
from tests.support.combiners.examples import list_variants

VARIANTS = list_variants(3)
ROWS = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 10.0, 100.0])[:, None]
LOSSES = torch.tensor([1.2, 2.0, 3.0])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def combined(word: str, surroundings: Callable[[], AbstractContextManager[object]] = nullcontext) -> list[Tensor]:
    """What three steps find from task gradients."""
    name, arguments = VARIANTS[word]
    found: list[Tensor] = []
    with surroundings():
        combiner = make_combiner(name, **arguments)
        for _ in range(3):
            found += combiner([ROWS[:, :20].view(3, 4, 5), ROWS[:, 20:]], LOSSES).gradient
            combiner.after_step(0.9 * LOSSES)
    return found


@cache
def descended(word: str, surroundings: Callable[[], AbstractContextManager[object]] = nullcontext) -> list[Tensor]:
    """The gradients of three steps of a small network; its losses are made outside."""
    name, arguments = VARIANTS[word]
    trunk, heads = nn.Parameter(ROWS[:2, :4].clone()), nn.Parameter(ROWS[:, 4:6].clone())
    with surroundings():
        combiner = make_combiner(name, **arguments)
    found: list[Tensor] = []
    for step in range(3):
        trunk.grad = heads.grad = None
        losses = [(head * (trunk @ ROWS[0, step : step + 4])).square().mean() + 1 for head in heads]
        with surroundings():
            combiner.backward(losses, [trunk], [heads])
            combiner.after_step(0.9 * torch.stack(losses).detach())
        assert trunk.grad is not None
        assert heads.grad is not None
        found += [trunk.grad, heads.grad]
    return found


@pytest.mark.parametrize("word", VARIANTS)
def test_autocast_rounds_no_product_of_a_combiner(word):
    for ours, theirs in zip(
        combined(word, lambda: torch.autocast("cpu", dtype=torch.bfloat16)), combined(word), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "surroundings",
    [
        pytest.param(lambda: torch.device("meta"), id="device"),
        pytest.param(lambda: default_dtype(torch.float64), id="float64"),
        pytest.param(lambda: default_dtype(torch.bfloat16), id="bfloat16"),
    ],
)
@pytest.mark.parametrize("word", VARIANTS)
def test_defaults_of_torch_change_nothing(word, surroundings):
    """A tensor made on the default device, here one without numbers, would be an error."""
    for ours, theirs in zip(descended(word, surroundings), descended(word), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
