"""Checks and failures around SB3's ``learn``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from mtrl_imgrad.combiners import Status
from mtrl_imgrad.errors import EnvironmentFaultError, LearningInterruptedError, NonFiniteError

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


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
    """The ``callback`` of SB3's ``learn`` as a list of objects."""
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


def raise_non_finite(
    agent: MultiTaskAlgorithm, losses: Mapping[str, Sequence[float]], statuses: Mapping[str, Status], where: str
) -> NoReturn:
    """Say what was wrong with an update that was not applied.

    Args:
        agent: whose update it was.
        losses: of each task, by ``"critic"`` and ``"actor"``.
        statuses: of their combiners.
        where: which update it was, and what became of it.
    """
    for side, row in losses.items():
        for name, loss in zip(agent.tasks.names, row, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"the {side} loss of task {name!r} is {loss} {where}. A smaller learning_rate or "
                    "max_grad_norm=1.0 usually helps; on_nonfinite='skip' or 'drop_task' goes on without it"
                )
    for side, status in statuses.items():
        if status == Status.NOT_POSITIVE:
            name = (agent.critic_combiner if side == "critic" else agent.actor_combiner).name
            raise NonFiniteError(
                f"combiner {name!r} cannot weigh the {side} losses, of which the lowest is "
                f"{min(losses[side]):.6g}, {where}. {status.sentence} Give a lower one in combiner_kwargs, or the "
                f"{side} another combiner"
            )
    raise NonFiniteError(f"a gradient is NaN or infinite {where}, although all losses are finite")
