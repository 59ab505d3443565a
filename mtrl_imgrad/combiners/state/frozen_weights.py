"""Weights that are found on every n-th step and used on the steps between.

Zhou et al. (IMGrad, arXiv 2503.08006) and Navon et al. (Nash-MTL, arXiv 2202.01017) speed training up in this way.
What is frozen is the whole coefficient of each task (ours to choose for IMGrad, whose paper does not say): then a step
between costs one backward of the weighted loss. A coefficient is that of a mean over tasks; where some are absent from
a step between, those of the others grow as the mean's do, from one over all to one over those present.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.state.tables import TaskIds, index_of
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError


class FrozenWeights:
    """The weights of the last solved step; a part of a combiner's state.

    A step whose gradients were not finite leaves no weights behind: those of the solve before stay, or, if there was
    none for its tasks, the next step solves again. For that alone the host looks at a status: once, after the first
    solve.

    Args:
        period: steps from one solve to the next, n.
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self._age = 0
        self._tasks: list[int] = []
        self._weights: Weights | None = None
        self._looked = False

    def due(self, tasks: TaskIds | None) -> bool:
        """Whether the next step must solve."""
        if self._weights is not None and not self._looked:
            self._looked = True
            if self._weights.status == Status.NON_FINITE:
                self._weights = None
        if self._weights is None or self._age >= self.period:
            return True
        return tasks is not None and not set(tasks) <= set(self._tasks)

    def keep(self, weights: Weights, tasks: TaskIds | None) -> Weights:
        """Take over the answer of a solved step, and hand it on."""
        ids = list(range(weights.values.shape[-1])) if tasks is None else list(tasks)
        before = self._weights
        if before is None or ids != self._tasks:
            self._looked = False
            self._weights = dataclasses.replace(weights, extras={})
        else:
            failed = weights.status_code == int(Status.NON_FINITE)
            self._weights = _on(weights.values.device, before).where(failed, weights)
        self._age, self._tasks = 1, ids
        return weights

    def recall(self, like: Tensor, tasks: TaskIds | None) -> Weights:
        """The weights for a step between.

        Args:
            like: ``[K]`` on the device that the weights are wanted on.
            tasks: K task ids among those that the weights were found for, or None for all of them.
        """
        assert self._weights is not None, "the caller asked `due`"
        if tasks is None and len(self._tasks) != like.shape[-1]:
            raise ArgumentError(
                f"weights were found for {len(self._tasks)} tasks, got {like.shape[-1]}; `tasks` must say which"
            )
        self._age += 1
        weights = _on(like.device, self._weights)
        if tasks is not None:
            rows = index_of(map(self._tasks.index, tasks), like.device)
            weights = dataclasses.replace(weights, values=weights.values[rows] * (len(self._tasks) / len(rows)))
        return weights

    def get_state(self) -> dict[str, Any]:
        """Age, task ids, and the weights with their certificate (None before the first step)."""
        weights = self._weights
        return {
            "age": self._age,
            "tasks": list(self._tasks),
            "values": None if weights is None else weights.values.clone(),
            "residual": None if weights is None else weights.residual.clone(),
            "status_code": None if weights is None else weights.status_code.clone(),
        }

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        if not isinstance(new_state, dict) or set(new_state) != set(self.get_state()):
            raise ArgumentError(f"frozen weights have the parts {sorted(self.get_state())}, got {new_state!r}")
        values, tasks = new_state["values"], new_state["tasks"]
        if values is not None and not (isinstance(values, Tensor) and values.shape == (len(tasks),)):
            raise ArgumentError(f"frozen weights must hold one value for each of {len(tasks)} tasks")
        self._age, self._tasks = int(new_state["age"]), [int(task) for task in tasks]
        self._weights, self._looked = None, False
        if values is not None:
            residual, status = float(new_state["residual"]), Status(int(new_state["status_code"]))
            self._weights = Weights(
                values.to(torch.float64, copy=True),
                residual=values.new_tensor(residual, dtype=torch.float64),
                status_code=values.new_tensor(int(status), dtype=torch.int64),
            )


def _on(device: torch.device, weights: Weights) -> Weights:
    """The weights on a device, without extras."""
    return Weights(weights.values.to(device), weights.residual.to(device), weights.status_code.to(device))
