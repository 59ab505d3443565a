"""Histograms and masked means without a look from the host."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError

ClassCount = Annotated[int, Ge(2)]


def int_zeros(*shape: int) -> Tensor:
    """Counters."""
    return torch.zeros(shape, dtype=torch.int64)


def float_zeros(*shape: int) -> Tensor:
    """Sums."""
    return torch.zeros(shape, dtype=torch.float64)


def counts_of(indices: Tensor, mask: Tensor, size: int) -> Tensor:
    """How often each of ``0 .. size - 1`` occurs in ``indices`` where ``mask`` holds: ``[size]``, int64.

    Elements outside the mask go to a bin of their own that is dropped: selecting them would wait for the device.
    """
    bins = torch.where(mask, indices, size).flatten()
    counts = torch.zeros(size + 1, dtype=torch.int64, device=bins.device)
    return counts.scatter_add_(0, bins, torch.ones_like(bins))[:size]


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum in float64 where ``mask`` holds."""
    return torch.where(mask, values, 0).sum(dtype=torch.float64)


def check_shapes(prediction: Tensor, target: Tensor, expected: str, fits: bool) -> None:
    """Raise `ArgumentError` unless the shapes fit.

    Args:
        prediction: for the message.
        target: for the message.
        expected: what they should have been.
        fits: whether they are.
    """
    if not fits:
        raise ArgumentError(
            f"prediction and target must be {expected}, got {list(prediction.shape)} and {list(target.shape)}"
        )
