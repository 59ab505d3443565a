"""Which of a network's parameters all tasks share, and which belong to one task each.

* **shared**: every task's loss depends on them; their K gradients go through a combiner;
* **task-specific**: a parameter with a leading task axis ``[K, ...]`` of which task k uses row k only (a head
  a task, an embedding a task). Layers that hold such parameters derive from `TaskModule`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.layout import laid_out_as
from mtrl_imgrad.validation import checked


class TaskModule(nn.Module):
    """A layer whose direct parameters all have a leading task axis ``[K, ...]``: each task owns a row.

    Inside `by_rows` and `over_tasks` such a parameter arrives without that axis (the row of the task at hand), so a
    layer tells the two situations apart by the number of dimensions.
    """


class Parameters(NamedTuple):
    """A network's parameters by name, detached, split by who they belong to."""

    shared: dict[str, Tensor]
    task_specific: dict[str, Tensor]
    frozen: dict[str, Tensor] = {}  # noqa: RUF012  (never written to)
    """Parameters that do not ask for a gradient: no combiner sees them, no optimizer moves them."""

    def of_one_task(self, task_specific_rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """All parameters as one task sees them, given its rows of the task-specific ones."""
        return {**self.frozen, **self.shared, **task_specific_rows}


@checked
class ParameterIndex:
    """The owners of a module's parameters, shared or a task, looked up once.

    Args:
        module: its `TaskModule` layers hold the task-specific parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        task_specific_names = {
            f"{prefix}.{name}" if prefix else name
            for prefix, layer in module.named_modules()
            if isinstance(layer, TaskModule)
            for name, _ in layer.named_parameters(recurse=False)
        }
        self._entries = [(name, value, name in task_specific_names) for name, value in module.named_parameters()]

    def split(self) -> Parameters:
        """The parameters as they are now, detached; they share the module's memory."""
        parts = Parameters({}, {}, {})
        for name, parameter, is_task_specific in self._entries:
            if is_task_specific and not parameter.requires_grad:
                raise ArgumentError(f"parameter {name!r} belongs to single tasks and cannot be frozen")
            trained = parts.task_specific if is_task_specific else parts.shared
            (trained if parameter.requires_grad else parts.frozen)[name] = parameter.detach()
        return parts

    def assign(self, gradients: Mapping[str, Tensor]) -> list[nn.Parameter]:
        """Put a gradient into ``.grad`` of every parameter that has one, and return these parameters."""
        values = []
        for name, parameter, _ in self._entries:
            gradient = gradients.get(name)
            parameter.grad = None if gradient is None else laid_out_as(parameter, gradient)
            if gradient is not None:
                values.append(parameter)
        return values


@checked
def split_parameters(module: nn.Module) -> Parameters:
    """Split the parameters of ``module`` by who they belong to, see `ParameterIndex.split`."""
    return ParameterIndex(module).split()
