"""Per-task gradients for the price of about one backward.

In reinforcement learning every task's loss depends on its own rows of the batch only. With a task-major batch
``[K, B, ...]`` one vectorised backward therefore yields all K gradients: `by_rows`. No loop over tasks is run.

A loss is written for **one** task: ``loss(parameters, *rows)`` with the parameters of that task (the shared ones, and
its rows of the task-specific ones) and its rows ``[B, ...]``; `by_rows` and `over_tasks` spread it over all of them.
Another network's `Parameters` among the rows arrive as that task sees them, too.

These functions run at every update, so they check nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners.printing import as_line, numbers_text
from mtrl_imgrad.gradients.parameters import Parameters

TaskLoss = Callable[..., tuple[Tensor, Any]]
"""``(parameters, *rows) -> (scalar loss, auxiliary tensors)`` for one task."""


class RowGradients(NamedTuple):
    """The value of `by_rows`: losses ``[K]``, both Jacobians by parameter name, and the auxiliary tensors."""

    losses: Tensor
    shared: dict[str, Tensor]
    """``[K, *shape]`` for each shared parameter."""
    task_specific: dict[str, Tensor]
    """``[K, *shape of a row]`` for each task-specific parameter: row k is task k's gradient."""
    aux: Any

    def some(self, index: Tensor) -> RowGradients:
        """The gradients of the rows ``index``; ``aux`` stays that of all."""
        shared, task_specific = (
            {name: block[index] for name, block in part.items()} for part in (self.shared, self.task_specific)
        )
        return RowGradients(self.losses[index], shared, task_specific, self.aux)

    def __repr__(self) -> str:
        """In one line."""
        parts = [
            f"{len(self.shared)} shared",
            f"{len(self.task_specific)} task-specific",
            numbers_text("losses", self.losses),
        ]
        return as_line("RowGradients", parts)


class DifferentiableLosses(NamedTuple):
    """The value of `differentiable_losses`."""

    losses: Tensor
    """``[K]``."""
    pull_back: Callable[[Tensor], tuple[dict[str, Tensor], dict[str, Tensor]]]
    """From weights ``[K]`` to the gradients of the weighted sum: of shared and of task-specific parameters."""
    aux: Any
    """The auxiliary tensors of the loss, with a leading task axis."""


def over_tasks(function: Callable[..., Any], parameters: Parameters, *rows: Any) -> Any:
    """``function(parameters, *rows)`` for every task at once, without gradients.

    Args:
        function: written for one task.
        parameters: of the network that the function calls.
        rows: pytrees of tensors ``[K, ...]``, or `Parameters` of another network.

    Returns:
        The function's outputs with a leading task axis.
    """

    def one_task(task_specific: dict[str, Tensor], *task_rows: Any) -> Any:
        return function(parameters.of_one_task(task_specific), *map(_as_one_task_sees, task_rows))

    return torch.func.vmap(one_task, in_dims=(0, *map(_task_axis, rows)))(parameters.task_specific, *rows)


def by_rows(loss: TaskLoss, parameters: Parameters, *rows: Any) -> RowGradients:
    """The K losses and the K gradients of all parameters, in one vectorised backward.

    Args:
        loss: written for one task, returns a scalar and auxiliary tensors.
        parameters: of the network to differentiate.
        rows: pytrees of tensors ``[K, ...]``, or `Parameters` of another network, which count as constants.

    Returns:
        `RowGradients`; the same numbers as K separate backwards.
    """

    def one_task(shared: dict[str, Tensor], task_specific: dict[str, Tensor], *task_rows: Any) -> tuple[Tensor, Any]:
        return loss(parameters._replace(shared=shared).of_one_task(task_specific), *map(_as_one_task_sees, task_rows))

    differentiate = torch.func.grad_and_value(one_task, argnums=(0, 1), has_aux=True)
    in_dims = (None, 0, *map(_task_axis, rows))  # shared parameters are the same for all tasks
    (shared, task_specific), (losses, aux) = torch.func.vmap(differentiate, in_dims=in_dims)(
        parameters.shared, parameters.task_specific, *rows
    )
    return RowGradients(losses, shared, task_specific, aux)


def differentiable_losses(loss: TaskLoss, parameters: Parameters, *rows: Any) -> DifferentiableLosses:
    """The K losses, differentiable once, with weights that may depend on them.

    Args:
        loss: as for `by_rows`, as are the arguments after it.
        parameters: of the network to differentiate.
        rows: pytrees of tensors ``[K, ...]``, or `Parameters` of another network.
    """

    def losses_of(shared: dict[str, Tensor], task_specific: dict[str, Tensor]) -> tuple[Tensor, Any]:
        return over_tasks(loss, Parameters(shared, task_specific, parameters.frozen), *rows)

    losses, pull_back, aux = torch.func.vjp(  # type: ignore[misc]
        losses_of, parameters.shared, parameters.task_specific, has_aux=True
    )
    return DifferentiableLosses(losses, pull_back, aux)


def _task_axis(rows: Any) -> Any:
    """The task axis of an argument, for vmap: the shared parameters of a network have none."""
    return Parameters(None, 0, None) if isinstance(rows, Parameters) else 0  # type: ignore[arg-type]


def _as_one_task_sees(rows: Any) -> Any:
    return rows.of_one_task(rows.task_specific) if isinstance(rows, Parameters) else rows
