"""What the updates of one training of `MTPPO` measured, on its way to SB3's log."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.agents.ppo_update import PPOReport, TaskMeasures

__all__ = ["TAGS", "TrainingLog", "finite_mean"]

TAGS = {
    "policy_loss": "policy_gradient_loss",
    "value_loss": "value_loss",
    "entropy_loss": "entropy_loss",
    "approx_kl": "approx_kl",
    "clip_fraction": "clip_fraction",
}
"""SB3's names of the columns of `TaskMeasures`."""
FLAGS = ("counts", "finite", "actor_status", "critic_status")
"""What is known of an update beside its measures: whether it counts and was finite, and its combiners' statuses."""


def finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the finite values; NaN where there is none. Tasks that were left out of a step have others."""
    finite = np.isfinite(values)
    count = finite.sum(axis)
    return np.where(count > 0, np.where(finite, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan)


class TrainingLog:
    """Collects on the device what the updates of a training measured, and copies it to the host once."""

    def __init__(self) -> None:
        self._measures: list[Tensor] = []
        self._flags: list[Tensor] = []

    def add(self, report: PPOReport) -> None:
        """Keep the numbers; the combinations, which hold gradients, are let go."""
        self._measures.append(torch.stack(report.measures))
        flags = (report.counts, report.finite, report.actor.status_code, report.critic.status_code)
        self._flags.append(torch.stack([flag.long() for flag in flags]))

    def on_host(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The columns of `TaskMeasures`, each ``[updates, K]``, and the numbers of `FLAGS`, each ``[updates]``."""
        measures, flags = torch.stack(self._measures), torch.stack(self._flags)
        flat = torch.cat([measures.flatten(1), flags.to(measures.dtype)], dim=1).cpu().double().numpy()
        split = measures[0].numel()
        columns = flat[:, :split].reshape(measures.shape).swapaxes(0, 1)
        return dict(zip(TaskMeasures._fields, columns, strict=True)), dict(zip(FLAGS, flat[:, split:].T, strict=True))
