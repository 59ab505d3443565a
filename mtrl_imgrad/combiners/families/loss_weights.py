"""Weights found from losses, wrapped up: nothing was solved, and non-finite losses give non-finite weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtrl_imgrad.combiners.result import Status, Weights

__all__ = ["are_finite", "weights_from"]


def are_finite(losses: Tensor) -> Tensor:
    """``[...]``: whether all K losses of a step are finite; a method's state must move only where they are."""
    return torch.isfinite(losses).all(-1)


def weights_from(values: Tensor, losses: Tensor, extras: Mapping[str, Tensor] | None = None) -> Weights:
    """`Weights` of a method that solves nothing.

    Args:
        values: ``[..., K]`` coefficients.
        losses: ``[..., K]`` that they were found from; where one is not finite the coefficients become NaN.
        extras: what else the method reports, by name.
    """
    finite = are_finite(losses)
    return Weights(
        values=torch.where(finite[..., None], values.double(), torch.nan),
        residual=torch.where(finite, 0.0, torch.nan).double(),
        status_code=torch.where(finite, int(Status.SOLVED), int(Status.NON_FINITE)),
        extras=dict(extras or {}),
    )
