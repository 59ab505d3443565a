"""Which parts of a target carry a measurement, and targets without any."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

__all__ = ["IGNORED_LABEL", "UNKNOWN_ATTRIBUTE", "measured_pixels", "unknown"]

IGNORED_LABEL = -1
"""Label of a pixel without a class."""
UNKNOWN_ATTRIBUTE = -1.0
"""Target of an image of which nobody says whether it has the attribute."""


def measured_pixels(target: Tensor, protocol: Protocol) -> Tensor:
    """Where a depth or normal map was measured; both formats write zeros where it was not.

    Args:
        target: ``[B, C, H, W]``.
        protocol: ``"fixed"`` takes pixels with any channel other than zero; ``"paper"`` those whose channels do not
            sum to zero, which drops a real normal whose components cancel.

    Returns:
        ``[B, H, W]``, boolean.
    """
    return target.sum(dim=1) != 0 if protocol == "paper" else (target != 0).any(dim=1)


def unknown(task: TaskSpec, target: Tensor) -> Tensor:
    """A target of the same shape and type in which nothing is known."""
    if task.kind == "segmentation":
        return torch.full_like(target, IGNORED_LABEL)
    return torch.full_like(target, UNKNOWN_ATTRIBUTE) if task.kind == "attribute" else torch.zeros_like(target)
