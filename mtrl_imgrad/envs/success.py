"""Success in an environment's info, under one of two names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl_imgrad.errors import EnvironmentFaultError

SUCCESS_KEYS = ("success", "is_success")
"""Gymnasium-Robotics and SB3 use the second, Meta-World the first."""
_NUMBERS = (bool, np.bool_, int, float, np.integer, np.floating)


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Whether an info tells of a success; None where it says nothing about it.

    A number is a success if it is positive; NaN is none.

    Raises:
        TypeError: if the entry is neither a bool nor a number, for instance None, text or an array.
    """
    success: bool | None = None
    for key in SUCCESS_KEYS:
        if key in info:
            value = info[key]
            if isinstance(value, np.ndarray) and value.ndim == 0:
                value = value[()]
            if not isinstance(value, _NUMBERS):
                kind = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
                raise TypeError(f"info[{key!r}] must be True, False or a number, got {kind}")
            success = bool(success or value > 0)
    return success


class KnownSuccess:
    """Which tasks tell of success: those do whose first episode does; every later one must do as the first.

    Args:
        num_tasks: K.

    Attributes:
        tasks: K entries; None where no episode has ended yet.
    """

    def __init__(self, num_tasks: int) -> None:
        self.tasks: list[bool | None] = [None] * num_tasks

    def check(self, task: int, told: bool, place: str) -> None:
        """Take in the end of an episode.

        Args:
            task: its number.
            told: whether an info of the episode told of success.
            place: for the message.

        Raises:
            EnvironmentFaultError: if an earlier episode of the task did otherwise.
        """
        if self.tasks[task] is None:
            self.tasks[task] = told
        elif self.tasks[task] != told:
            now, before = ("some", "none") if told else ("no", "some")
            raise EnvironmentFaultError(
                f"{place}: {now} info of this episode held 'success' or 'is_success', {before} of an earlier one; "
                "every episode must say whether it succeeded, or none"
            )
