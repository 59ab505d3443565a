"""How the tasks' own parameters (heads) take their gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.errors import ArgumentError

Heads = Literal["unweighted", "weighted"]
"""A task-specific parameter takes its task's gradient as it is, or times the task's weight; published codes differ."""


def head_weights(combiner: Combiner, heads: Heads, weights: Tensor | None, losses: Tensor) -> Tensor:
    """``[K]``: what a task-specific parameter multiplies its gradient with."""
    if heads == "unweighted":
        return torch.ones_like(losses)
    if weights is None:
        raise ArgumentError(f"heads='weighted' does not go with {combiner.name}, which weighs no tasks")
    return weights
