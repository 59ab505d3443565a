"""Conditional optimizer steps without a device sync, and a check of optimizer states."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError


def step_where(optimizer: torch.optim.Optimizer, wanted: Tensor) -> None:
    """Step where the scalar bool tensor ``wanted`` is True.

    Fused optimizers (the agents' default) decide on the device; any other costs one device sync.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # Fused optimizers skip the step by themselves where found_inf is 1.
        optimizer.found_inf = (~wanted).float()  # type: ignore[attr-defined]
    elif not bool(wanted):
        return
    optimizer.step()


def check_optimizer(name: str, optimizer: torch.optim.Optimizer) -> None:
    """Check an optimizer's state after it was loaded: it accepts any and fails at its next step only."""
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape not in ((), parameter.shape):
                raise ArgumentError(
                    f"{name}: {key} of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}"
                )
