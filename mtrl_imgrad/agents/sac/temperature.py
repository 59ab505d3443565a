"""Entropy temperatures of multi-task SAC: fixed or learned, one a task or one for all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.agents.common.arguments import as_float
from mtrl_imgrad.agents.off_policy.buffer import TaskBatch
from mtrl_imgrad.combiners import Combination
from mtrl_imgrad.combiners.state.tables import index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.conditional_step import step_where


@dataclass
class Temperature:
    """Entropy temperatures.

    Attributes:
        log_value: ``[K]`` (a temperature a task) or ``[1]`` (one for all).
        target_entropy: what a learned temperature steers the entropy to.
        optimizer: None keeps them fixed.
    """

    log_value: Tensor
    target_entropy: float
    optimizer: torch.optim.Optimizer | None

    @classmethod
    def of(cls, ent_coef: str | float, target_entropy: float, num_tasks: int, device: torch.device) -> Temperature:
        """Temperatures from `MTSAC`'s ``ent_coef``; learned ones require a gradient, and still need an optimizer.

        Raises:
            ArgumentError: if it is malformed.
        """
        kind, initial = _parse(ent_coef)
        log_value = torch.full((1 if kind == "shared" else num_tasks,), math.log(initial), device=device)
        return cls(log_value.requires_grad_(kind != "fixed"), target_entropy, None)


def update_temperature(
    temperature: Temperature, batch: TaskBatch, log_prob: Tensor, actor: Combination, finite: Tensor
) -> Tensor:
    """Step towards the target entropy; the gradient of the loss is written down, so no graph is needed.

    Tasks that were left out of the actor's step are left out here; with a skipped one the temperatures stay.
    """
    surplus = (batch.weights * (log_prob + temperature.target_entropy)).sum(1)  # [K], or its mean for one temperature
    count = len(surplus) - len(actor.non_finite)
    if actor.non_finite:
        surplus = surplus.index_fill(0, index_of(actor.non_finite, surplus.device), 0.0)
    own = temperature.log_value.numel() == surplus.numel()  # a temperature a task; also where there is one task
    gradient = -surplus if own else -surplus.sum(0, keepdim=True) / max(count, 1)
    loss = (temperature.log_value.detach() * gradient).mean()
    if temperature.optimizer is not None and not actor.skipped:
        temperature.log_value.grad = gradient.to(temperature.log_value.dtype)
        step_where(temperature.optimizer, finite)
    return loss


def _parse(ent_coef: str | float) -> tuple[str, float]:
    """``"auto_0.1"`` to ``("auto", 0.1)``, ``0.2`` to ``("fixed", 0.2)``."""
    expected = "'auto', 'auto_<initial>', 'shared', 'shared_<initial>' or a positive number"
    if isinstance(ent_coef, str) and ent_coef.split("_")[0] in ("auto", "shared"):
        kind, _, initial = ent_coef.partition("_")
        value = as_float(initial, "ent_coef", expected) if initial else 1.0
    else:
        kind, value = "fixed", as_float(ent_coef, "ent_coef", expected)
    if isinstance(ent_coef, bool) or not 0 < value < math.inf:
        raise ArgumentError(f"ent_coef must be {expected}, got {ent_coef!r}")
    return kind, value
