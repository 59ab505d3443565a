"""Checks and failures around SB3's ``learn``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from mtrl_imgrad.errors import EnvironmentFaultError, LearningInterruptedError, NonFiniteError

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm

__all__ = ["FiniteCheck", "as_callbacks", "failures_handled"]


class FiniteCheck(BaseCallback):
    """Refuses NaN and infinity from an environment that does not do so by itself.

    An agent puts it before all other callbacks, and SB3 calls these right after the environment's step: so nothing has
    looked at the numbers yet, neither the logs nor the replay, nor the value function that SB3 asks about a terminal
    observation.

    Raises:
        EnvironmentFaultError: names field, task, environment and step.
    """

    def _on_training_start(self) -> None:
        self._check("observation", self.model._last_obs)

    def _on_step(self) -> bool:
        self._check("reward", self.locals["rewards"])
        self._check("observation", self.locals["new_obs"])
        for index in np.flatnonzero(self.locals["dones"]).tolist():
            last = self.locals["infos"][index].get("terminal_observation")
            if last is not None:
                self._check("terminal observation", np.asarray(last)[None], first=index)
        return True

    def _check(self, field: str, rows: Any, first: int = 0) -> None:
        """Look at ``rows [n, ...]`` of the environments from ``first`` on."""
        finite = np.isfinite(rows)
        if finite.all():
            return
        row, *column = np.argwhere(~finite)[0].tolist()
        task = self.model.tasks.task_of(first + row)  # type: ignore[attr-defined]
        raise EnvironmentFaultError(
            f"the {field}{column or ''} is {rows[(row, *column)]} in task {task!r}, environment {first + row}, step "
            f"{self.num_timesteps // self.training_env.num_envs} of learning"
        )


def as_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """What SB3's ``learn`` takes as its callback, as a list of objects."""
    given = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in given]


@contextmanager
def failures_handled(agent: MultiTaskAlgorithm, callback: MaybeCallback) -> Iterator[None]:
    """Around SB3's ``learn``: where it raises, callbacks are told and the next ``learn`` begins new episodes.

    SB3 tells callbacks nothing of an exception, so they would neither save what there is nor release what they hold;
    those that have ``on_learning_failed(error)`` are called. New episodes, since the environment may be a step ahead of
    the observation that the agent would act on; not after a signal between two rollouts or an update that was refused.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, LearningInterruptedError | NonFiniteError):
            agent._last_obs = None
        for one in _flat(callback):
            if hasattr(one, "on_learning_failed"):
                one.on_learning_failed(error)
        raise


def _flat(callback: Any) -> Iterator[Any]:
    """The callbacks in lists of lists."""
    inner = callback.callbacks if isinstance(callback, CallbackList) else callback
    if isinstance(inner, list):
        for one in inner:
            yield from _flat(one)
    elif inner is not None:
        yield inner
