"""Measures of the updates of one training of `MTPPO`, from the device to SB3's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.agents.common.learning import raise_non_finite
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.agents.ppo.update import PPOReport, TaskMeasures
from mtrl_imgrad.combiners import Status

if TYPE_CHECKING:
    from mtrl_imgrad.agents.ppo.agent import MTPPO


_TAGS = {
    "policy_loss": "policy_gradient_loss",
    "value_loss": "value_loss",
    "entropy_loss": "entropy_loss",
    "approx_kl": "approx_kl",
    "clip_fraction": "clip_fraction",
}
"""SB3's names of the columns of `TaskMeasures`."""
_FLAGS = ("within_kl", "finite", "actor_status", "critic_status")
"""Of an update: whether it was made (see ``target_kl``) and was finite, and its combiners' statuses."""


def _finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
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
        flags = (report.within_kl, report.finite, report.actor.status_code, report.critic.status_code)
        self._flags.append(torch.stack([flag.long() for flag in flags]))

    def on_host(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The columns of `TaskMeasures`, each ``[updates, K]``, and the numbers of `_FLAGS`, each ``[updates]``."""
        measures, flags = torch.stack(self._measures), torch.stack(self._flags)
        flat = torch.cat([measures.flatten(1), flags.to(measures.dtype)], dim=1).cpu().double().numpy()
        split = measures[0].numel()
        columns = flat[:, :split].reshape(measures.shape).swapaxes(0, 1)
        return dict(zip(TaskMeasures._fields, columns, strict=True)), dict(zip(_FLAGS, flat[:, split:].T, strict=True))


def log_training(agent: MTPPO, log: TrainingLog, batches_per_epoch: int) -> None:
    """Record a training: the one copy from the device that it makes (besides those for ``target_kl``)."""
    measures, flags = log.on_host()
    made, finite = flags["within_kl"] > 0, flags["finite"] > 0
    if not finite.all():
        first = int(np.argmin(finite))
        actor = measures["policy_loss"] + agent.ent_coef * measures["entropy_loss"]
        losses = {"critic": measures["value_loss"][first].tolist(), "actor": actor[first].tolist()}
        statuses = {side: Status(int(flags[f"{side}_status"][first])) for side in losses}
        epoch, batch = (number + 1 for number in divmod(first, batches_per_epoch))
        where = f"in minibatch {batch} of epoch {epoch}; neither its step nor any later one was applied"
        raise_non_finite(agent, losses, statuses, where)
    measured = {name: column[made] for name, column in measures.items()}
    measured["approx_kl"] = measured["approx_kl"][-made[-batches_per_epoch:].sum() :]  # of the last epoch, as SB3
    for name, tag in _TAGS.items():
        _record(agent, tag, _finite_mean(measured[name], 0))
    last = {name: _finite_mean(column[-1], 0) for name, column in measured.items()}
    regularised = last["policy_loss"] + agent.ent_coef * last["entropy_loss"]
    agent.logger.record("train/loss", float(regularised + agent.vf_coef * last["value_loss"]))
    agent._record_non_finite()
    _record(agent, "explained_variance", agent.rollout_buffer.explained_variances())
    _record(agent, "std", agent.actor.log_std.weight.detach().exp().mean(1).cpu().numpy())
    agent.logger.record("train/n_updates", agent._n_updates, exclude="tensorboard")
    settings = agent._settings()
    agent.logger.record("train/clip_range", settings.clip_range)
    if settings.clip_range_vf is not None:
        agent.logger.record("train/clip_range_vf", settings.clip_range_vf)


def _record(agent: MTPPO, tag: str, by_task: np.ndarray) -> None:
    """The mean under SB3's tag, each task's value under ``<tag>/<task>``, off the printed table."""
    agent.logger.record(f"train/{tag}", float(_finite_mean(by_task, 0)))
    if agent.num_tasks > 1:
        record_per_task(agent.logger, f"train/{tag}", agent.tasks.names, by_task, on_screen=False)
