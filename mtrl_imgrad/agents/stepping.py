"""Optimizer steps that happen or not by a tensor's word, without a look from the host."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["step_where"]


def step_where(optimizer: torch.optim.Optimizer, wanted: Tensor) -> None:
    """Step where the scalar bool tensor ``wanted`` is True.

    Fused optimizers (the agents' default) decide on the device; any other costs one copy to the host.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # Fused optimizers skip the step by themselves where found_inf is 1.
        optimizer.found_inf = (~wanted).float()  # type: ignore[attr-defined]
    elif not bool(wanted):
        return
    optimizer.step()
