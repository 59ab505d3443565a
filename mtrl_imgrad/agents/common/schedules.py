"""Arguments that change in the course of a training: SB3's schedules, whose numbers are checked where they are used."""

from __future__ import annotations

import math

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule

from mtrl_imgrad.errors import ArgumentError


def as_schedule(value: float | Schedule) -> FloatSchedule:
    """As SB3 keeps scheduled arguments; NumPy's numbers, which it refuses, are numbers here."""
    return FloatSchedule(value if callable(value) else float(value))


def scheduled(argument: str, schedule: Schedule, progress_remaining: float, *, finite: bool = True) -> float:
    """A schedule's number.

    Args:
        argument: its name.
        schedule: a function of the progress that remains.
        progress_remaining: from 1 at the beginning of a training to 0 at its end.
        finite: whether infinity is refused.

    Raises:
        ArgumentError: if it is no number >= 0.
    """
    value: object = None
    try:
        value = schedule(progress_remaining)
        number = float(value)
        if number >= 0 and (math.isfinite(number) or not finite):
            return number
    except (TypeError, ValueError) as error:
        value = error if value is None else value
    raise ArgumentError(
        f"{argument} must be a function that returns a {'finite ' * finite}number >= 0, got {value!r} "
        f"where {progress_remaining:.4g} of the training remains"
    )


class Scheduled(BaseAlgorithm):
    """The part of an agent that follows the learning rate's schedule."""

    def _setup_lr_schedule(self) -> None:
        super()._setup_lr_schedule()
        scheduled("learning_rate", self.lr_schedule, 1.0)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """As in SB3, but not below 0, where a last rollout goes on beyond the end: linear rates would be negative."""
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        """As in SB3; a wrong rate is an error before the optimizers take it."""
        scheduled("learning_rate", self.lr_schedule, self._current_progress_remaining)
        super()._update_learning_rate(optimizers)
