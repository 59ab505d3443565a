"""Per-task gradients through a combiner to one gradient for every parameter of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combination, Combiner
from mtrl_imgrad.combiners.gramian import scale_rows
from mtrl_imgrad.combiners.printing import as_line, numbers_text
from mtrl_imgrad.combiners.replicas.ranks import Ranks, check_alone
from mtrl_imgrad.combiners.replicas.slicing import Slicing
from mtrl_imgrad.combiners.state.tables import TaskIds, index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite, finite_rows, no_step, with_absent_tasks
from mtrl_imgrad.gradients.parameters import Parameters
from mtrl_imgrad.gradients.per_loss import Heads
from mtrl_imgrad.gradients.vectorized import RowGradients, TaskLoss, pull_back_of

__all__ = ["CombinedGradients", "combine_rows", "weighted_gradients"]


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


def combine_rows(
    combiner: Combiner,
    jacobian: RowGradients,
    heads: Heads = "unweighted",
    on_nonfinite: OnNonFinite = "raise",
    group: Any = None,
) -> CombinedGradients:
    """Combine the K gradients of the shared parameters; own parameters take their own task's gradient.

    Args:
        combiner: what turns K gradients into one.
        jacobian: of all parameters of a network.
        heads: whether an own parameter takes its task's plain gradient (``"unweighted"``) or that gradient times
            the task's weight (``"weighted"``). Published codes differ, see the combiners' pages.
        on_nonfinite: what becomes of a step with a NaN or an infinity, see `mtrl_imgrad.gradients.absent_tasks`. Under
            ``"raise"`` nothing is raised here, to spare a device sync: the gradients are then not finite, and the
            caller's to check.
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
    present = [task for task, is_finite in enumerate(finite) if is_finite]
    if on_nonfinite == "skip" or not present:
        absent = [task for task, is_finite in enumerate(finite) if not is_finite]
        return CombinedGradients({}, jacobian.losses, jacobian.aux, no_step(jacobian.losses, absent))
    return _combine_some(combiner, jacobian, heads, present)


_SMALLEST = 1e-12
"""Beside the largest weight; far below float32's precision, far above its smallest number."""


def weighted_gradients(
    combiner: Combiner, loss: TaskLoss, parameters: Parameters, *rows: Any, heads: Heads = "unweighted"
) -> CombinedGradients:
    """One backward of the weighted loss, for a combiner that needs no task gradients at this step.

    A row of an own parameter only ever meets its own task's loss, so its gradient is that loss's, times the weight;
    dividing the weight out again gives the plain gradient. A weight of zero counts as `_SMALLEST` of the largest, so
    that it can be divided out; the shared gradient does not notice.

    Args:
        combiner: its `Combiner.needs_jacobian` is False.
        loss: written for one task, as for `mtrl_imgrad.gradients.by_rows`.
        parameters: of the network to differentiate.
        rows: pytrees of tensors ``[K, ...]``.
        heads: as for `combine_rows`.
    """
    losses, pull_back, aux = pull_back_of(loss, parameters, *rows)
    found = combiner.weights_of_losses(losses.detach())
    values = found.values
    if heads == "unweighted" and parameters.own:
        smallest = _SMALLEST * values.abs().amax()
        values = torch.where(values.abs() < smallest, smallest, values)
    shared, own = pull_back(values.to(losses.dtype))
    if heads == "unweighted":
        own = {name: scale_rows(gradient, 1 / values) for name, gradient in own.items()}
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
        own = {name: scale_rows(gradient, combination.weights) for name, gradient in own.items()}
    return CombinedGradients(
        gradients={**dict(zip(names, combination.gradient, strict=True)), **own},
        losses=jacobian.losses,
        aux=jacobian.aux,
        combination=combination,
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
