"""Per-task gradients for the price of about one backward.

In reinforcement learning every task's loss depends on its own rows of the batch only. With a task-major batch
``[K, B, ...]`` one vectorised backward therefore yields all K gradients: `by_rows`. No loop over tasks is run.

A network's parameters are of two kinds:

* **shared**: every task's loss depends on them; their K gradients go through a combiner;
* **own** (task-specific): a parameter with a leading task axis ``[K, ...]`` of which task k uses row k only (a head
  a task, an embedding a task). Layers that hold such parameters derive from `TaskModule`.

A loss is written for **one** task: ``loss(parameters, *rows)`` with the parameters of that task (the shared ones, and
its own rows of the own ones) and its rows ``[B, ...]``; `by_rows` and `over_tasks` spread it over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mtrl_imgrad.checked import checked
from mtrl_imgrad.combiners import Combination, Combiner, Weights
from mtrl_imgrad.combiners.arguments import check_choice
from mtrl_imgrad.combiners.printing import as_line, numbers_text
from mtrl_imgrad.combiners.replicas.ranks import Ranks, check_alone
from mtrl_imgrad.combiners.replicas.slicing import Slicing
from mtrl_imgrad.combiners.state.tables import TaskIds, index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.absent_tasks import (
    OnNonFinite,
    check_on_nonfinite,
    finite_rows,
    no_step,
    with_absent_tasks,
)
from mtrl_imgrad.gradients.layout import laid_out_as
from mtrl_imgrad.gradients.per_loss import Heads

__all__ = [
    "CombinedGradients",
    "ParameterIndex",
    "Parameters",
    "RowGradients",
    "TaskModule",
    "by_rows",
    "combine_rows",
    "combined_by_rows",
    "over_tasks",
    "split_parameters",
]

TaskLoss = Callable[..., tuple[Tensor, Any]]
"""``(parameters, *rows) -> (scalar loss, auxiliary tensors)`` for one task."""


class TaskModule(nn.Module):
    """A layer whose direct parameters all have a leading task axis ``[K, ...]``: each task owns a row.

    Inside `by_rows` and `over_tasks` such a parameter arrives without that axis (the row of the task at hand), so a
    layer tells the two situations apart by the number of dimensions.
    """


class Parameters(NamedTuple):
    """A network's parameters by name, detached, split by who they belong to."""

    shared: dict[str, Tensor]
    own: dict[str, Tensor]
    frozen: dict[str, Tensor] = {}  # noqa: RUF012  (never written to)
    """Parameters that do not ask for a gradient: no combiner sees them, no optimizer moves them."""

    def of_one_task(self, own_rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """All parameters as one task sees them, given its rows of the own ones."""
        return {**self.frozen, **self.shared, **own_rows}


class RowGradients(NamedTuple):
    """What `by_rows` returns: losses ``[K]``, both Jacobians by parameter name, and the auxiliary tensors."""

    losses: Tensor
    shared: dict[str, Tensor]
    """``[K, *shape]`` for each shared parameter."""
    own: dict[str, Tensor]
    """``[K, *shape of a row]`` for each own parameter: row k is task k's gradient."""
    aux: Any

    def __repr__(self) -> str:
        """In one line."""
        parts = [f"{len(self.shared)} shared", f"{len(self.own)} own", numbers_text("losses", self.losses)]
        return as_line("RowGradients", parts)


@dataclass(frozen=True, repr=False)
class CombinedGradients:
    """One gradient for every parameter, ready for an optimizer.

    Attributes:
        gradients: by parameter name, shaped as the parameter; none if the step is left out (``combination.skipped``).
        losses: ``[K]``.
        aux: the auxiliary tensors of the loss, with a leading task axis.
        combination: the combiner's answer, for logs and diagnostics.
    """

    gradients: dict[str, Tensor]
    losses: Tensor
    aux: Any
    combination: Combination

    def __repr__(self) -> str:
        """In one line."""
        parts = [f"{len(self.gradients)} gradients", numbers_text("losses", self.losses), repr(self.combination)]
        return as_line("CombinedGradients", parts)


@checked
class ParameterIndex:
    """Who the parameters of a module belong to, looked up once.

    Args:
        module: its `TaskModule` layers hold the own parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        own_names = {
            f"{prefix}.{name}" if prefix else name
            for prefix, layer in module.named_modules()
            if isinstance(layer, TaskModule)
            for name, _ in layer.named_parameters(recurse=False)
        }
        self._entries = [(name, value, name in own_names) for name, value in module.named_parameters()]

    def split(self) -> Parameters:
        """The parameters as they are now, detached; they share the module's memory.

        Raises:
            ArgumentError: if an own parameter is frozen: it could not be told from its task's row.
        """
        found = Parameters({}, {}, {})
        for name, parameter, is_own in self._entries:
            if is_own and not parameter.requires_grad:
                raise ArgumentError(f"parameter {name!r} belongs to single tasks and cannot be frozen")
            kind = found.own if is_own else found.shared if parameter.requires_grad else found.frozen
            kind[name] = parameter.detach()
        return found

    def assign(self, gradients: Mapping[str, Tensor]) -> list[nn.Parameter]:
        """Put a gradient into ``.grad`` of every parameter that has one, and return these parameters."""
        found = []
        for name, parameter, _ in self._entries:
            gradient = gradients.get(name)
            parameter.grad = None if gradient is None else laid_out_as(parameter, gradient)
            if gradient is not None:
                found.append(parameter)
        return found


@checked
def split_parameters(module: nn.Module) -> Parameters:
    """Split the parameters of ``module`` by who they belong to, see `ParameterIndex.split`."""
    return ParameterIndex(module).split()


@checked
def over_tasks(function: Callable[..., Any], parameters: Parameters, *rows: Any) -> Any:
    """``function(parameters, *rows)`` for every task at once, without gradients.

    Args:
        function: written for one task.
        parameters: of the network that the function calls.
        rows: pytrees of tensors ``[K, ...]``.

    Returns:
        The function's outputs with a leading task axis.
    """

    def one_task(own: dict[str, Tensor], *task_rows: Any) -> Any:
        return function(parameters.of_one_task(own), *task_rows)

    return torch.func.vmap(one_task)(parameters.own, *rows)


@checked
def by_rows(loss: TaskLoss, parameters: Parameters, *rows: Any) -> RowGradients:
    """The K losses and the K gradients of all parameters, in one vectorised backward.

    Args:
        loss: written for one task, returns a scalar and auxiliary tensors.
        parameters: of the network to differentiate.
        rows: pytrees of tensors ``[K, ...]``.

    Returns:
        `RowGradients`; the same numbers as K separate backwards.
    """

    def one_task(shared: dict[str, Tensor], own: dict[str, Tensor], *task_rows: Any) -> tuple[Tensor, Any]:
        return loss(parameters._replace(shared=shared).of_one_task(own), *task_rows)

    differentiate = torch.func.grad_and_value(one_task, argnums=(0, 1), has_aux=True)
    in_dims = (None, 0, *(0 for _ in rows))
    (shared, own), (losses, aux) = torch.func.vmap(differentiate, in_dims=in_dims)(
        parameters.shared, parameters.own, *rows
    )
    return RowGradients(losses, shared, own, aux)


@checked
def combined_by_rows(
    combiner: Combiner,
    loss: TaskLoss,
    parameters: Parameters,
    *rows: Any,
    heads: Heads = "unweighted",
    on_nonfinite: OnNonFinite = "raise",
    group: Any = None,
) -> CombinedGradients:
    """Per-task gradients through a combiner, own parameters by their own task's gradient.

    Where the combiner can do without the Jacobian (`Combiner.needs_jacobian`) it gets one plain backward of the
    weighted loss instead, unless the tasks must be told apart for ``on_nonfinite``.

    Args:
        combiner: what turns K gradients (or losses) into one.
        loss: written for one task, returns a scalar and auxiliary tensors.
        parameters: of the network to differentiate.
        rows: pytrees of tensors ``[K, ...]``.
        heads: whether an own parameter takes its task's plain gradient (``"unweighted"``) or that gradient times
            the task's weight (``"weighted"``). Published codes differ, see the combiners' pages.
        on_nonfinite: what becomes of a step with a NaN or an infinity, see `mtrl_imgrad.gradients.absent_tasks`. Under
            ``"raise"`` nothing is raised here, to spare the wait: the gradients are then not finite, and the caller's
            to check.
        group: see `combine_rows`.
    """
    check_choice("heads", heads, get_args(Heads))
    check_on_nonfinite(on_nonfinite, combiner)
    if on_nonfinite == "raise" and group is None and not combiner.needs_jacobian():
        check_alone("combined_by_rows")
        return _by_weighted_loss(combiner, loss, parameters, *rows, heads=heads)
    return combine_rows(combiner, by_rows(loss, parameters, *rows), heads, on_nonfinite, group)


@checked
def combine_rows(
    combiner: Combiner,
    jacobian: RowGradients,
    heads: Heads = "unweighted",
    on_nonfinite: OnNonFinite = "raise",
    group: Any = None,
) -> CombinedGradients:
    """The second half of `combined_by_rows`: per-task gradients through the combiner.

    Args:
        combiner: as there, like the others.
        jacobian: of the rows of this process.
        heads: see there.
        on_nonfinite: see there.
        group: a ``torch.distributed`` process group, whose ranks have as many rows of each task: losses and gradients
            are averaged over them first, K x P numbers on every rank. ``aux`` stays that of this rank.

    Raises:
        ArgumentError: if several ranks run and no group was given.
    """
    if group is None:
        check_alone("combine_rows")
    else:
        jacobian = _mean_over(Ranks(group), jacobian)
    if on_nonfinite == "raise":
        return _combine(combiner, jacobian, heads)
    finite = finite_rows([*jacobian.shared.values(), *jacobian.own.values()], jacobian.losses).tolist()
    if all(finite):
        return _combine(combiner, jacobian, heads)
    present = [task for task, well in enumerate(finite) if well]
    if on_nonfinite == "skip" or not present:
        lost = [task for task, well in enumerate(finite) if not well]
        return CombinedGradients({}, jacobian.losses, jacobian.aux, no_step(jacobian.losses, lost))
    return _combine_some(combiner, jacobian, heads, present)


def _mean_over(ranks: Ranks, jacobian: RowGradients) -> RowGradients:
    blocks = [*jacobian.shared.values(), *jacobian.own.values(), jacobian.losses]
    *means, losses = (total / ranks.size for total in Slicing(blocks, ranks).sum(blocks))
    count = len(jacobian.shared)
    return RowGradients(
        losses=losses,
        shared=dict(zip(jacobian.shared, means[:count], strict=True)),
        own=dict(zip(jacobian.own, means[count:], strict=True)),
        aux=jacobian.aux,
    )


def _combine_some(combiner: Combiner, jacobian: RowGradients, heads: Heads, present: list[int]) -> CombinedGradients:
    """Without the other tasks, whose own parameters take a gradient of zero."""
    index = index_of(present, jacobian.losses.device)
    some = RowGradients(
        losses=jacobian.losses[index],
        shared={name: block[index] for name, block in jacobian.shared.items()},
        own={name: block[index] for name, block in jacobian.own.items()},
        aux=jacobian.aux,
    )
    found = _combine(combiner, some, heads, present)
    own = {
        name: torch.zeros_like(block).index_copy(0, index, found.gradients[name])
        for name, block in jacobian.own.items()
    }
    return CombinedGradients(
        gradients={**found.gradients, **own},
        losses=jacobian.losses,
        aux=jacobian.aux,
        combination=with_absent_tasks(found.combination, present, range(len(jacobian.losses))),
    )


def _combine(
    combiner: Combiner, jacobian: RowGradients, heads: Heads, tasks: TaskIds | None = None
) -> CombinedGradients:
    names = list(jacobian.shared)
    if not names:  # every task has a network of its own: there is nothing to combine
        zero = torch.zeros_like(jacobian.losses[0])
        combination = Combination([], None, residual=zero, status_code=zero.long())
        return CombinedGradients(dict(jacobian.own), jacobian.losses, jacobian.aux, combination)
    if combiner.rows_per_task != 1:
        raise ArgumentError(f"{combiner!r} asks for {combiner.rows_per_task} rows a task, got 1: see combiner.backward")
    combination = combiner.combine([jacobian.shared[name] for name in names], jacobian.losses, tasks)
    own = jacobian.own
    if heads == "weighted":
        if combination.weights is None:
            raise ArgumentError(f"heads='weighted' does not go with {combiner.name}, which weighs no tasks")
        own = {name: _scale_rows(gradient, combination.weights) for name, gradient in own.items()}
    return CombinedGradients(
        gradients={**dict(zip(names, combination.gradient, strict=True)), **own},
        losses=jacobian.losses,
        aux=jacobian.aux,
        combination=combination,
    )


_SMALLEST = 1e-12
"""Beside the largest weight; far below float32's precision, far above its smallest number."""


def _by_weighted_loss(
    combiner: Combiner, loss: TaskLoss, parameters: Parameters, *rows: Any, heads: Heads
) -> CombinedGradients:
    """One backward of the weighted loss.

    A row of an own parameter only ever meets its own task's loss, so its gradient is that loss's, times the weight;
    dividing the weight out again gives the plain gradient. A weight of zero counts as `_SMALLEST` of the largest, so
    that it can be divided out; the shared gradient does not notice.
    """

    def losses_of(shared: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[Tensor, Any]:
        return over_tasks(loss, Parameters(shared, own, parameters.frozen), *rows)

    losses, pull_back, aux = torch.func.vjp(  # type: ignore[misc]
        losses_of, parameters.shared, parameters.own, has_aux=True
    )
    found: Weights = combiner.weights_of_losses(losses.detach())
    values = found.values
    if heads == "unweighted" and parameters.own:
        smallest = _SMALLEST * values.abs().amax()
        values = torch.where(values.abs() < smallest, smallest, values)
    shared, own = pull_back(values.to(losses.dtype))
    if heads == "unweighted":
        own = {name: _scale_rows(gradient, 1 / values) for name, gradient in own.items()}
    return CombinedGradients(
        gradients={**shared, **own},
        losses=losses,
        aux=aux,
        combination=Combination(
            gradient=list(shared.values()),
            weights=found.values,
            residual=found.residual,
            status_code=found.status_code,
            extras=found.extras,
        ),
    )


def _scale_rows(rows: Tensor, factors: Tensor) -> Tensor:
    return rows * factors.to(rows.dtype).view(-1, *(1 for _ in rows.shape[1:]))
