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
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite, combine_finite, finite_rows
from mtrl_imgrad.gradients.heads import Heads, head_weights
from mtrl_imgrad.gradients.parameters import Parameters
from mtrl_imgrad.gradients.vectorized import DifferentiableLosses, RowGradients


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
    """Combine the K gradients of the shared parameters; task-specific parameters take their own task's gradient.

    Args:
        combiner: what turns K gradients into one.
        jacobian: of all parameters of a network.
        heads: see `mtrl_imgrad.gradients.Heads`.
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
    blocks = [*jacobian.shared.values(), *jacobian.task_specific.values()]
    finite = finite_rows(blocks, jacobian.losses).tolist()  # the device sync
    if all(finite):
        return _combine(combiner, jacobian, heads)
    gradients: dict[str, Tensor] = {}  # none for a skipped step

    def combine_some(rows: list[int]) -> Combination:
        index = index_of(rows, jacobian.losses.device)
        some = _combine(combiner, jacobian.some(index), heads, rows)
        gradients.update(some.gradients)
        for name, block in jacobian.task_specific.items():  # zero for the tasks that are left out
            gradients[name] = torch.zeros_like(block).index_copy(0, index, some.gradients[name])
        return some.combination

    combination = combine_finite(finite, jacobian.losses, on_nonfinite, combine_some)
    return CombinedGradients(gradients, jacobian.losses, jacobian.aux, combination)


_SMALLEST = 1e-12
"""Beside the largest weight; far below float32's precision, far above its smallest number."""


def weighted_gradients(
    combiner: Combiner, differentiable: DifferentiableLosses, parameters: Parameters, heads: Heads = "unweighted"
) -> CombinedGradients:
    """One backward of the weighted loss, for a combiner that needs no task gradients at this step.

    A row of a task-specific parameter only ever meets its own task's loss, so its gradient is that loss's, times the
    weight; dividing the weight out again gives the plain gradient. A weight of zero counts as `_SMALLEST` of the
    largest, so that it can be divided out; the shared gradient does not notice.

    Args:
        combiner: its `Combiner.needs_jacobian` is False.
        differentiable: the losses and their pull-back.
        parameters: that the losses were differentiated by.
        heads: as for `combine_rows`.
    """
    losses, pull_back, aux = differentiable
    weights = combiner.weights_of_losses(losses.detach())
    values = weights.values
    if heads == "unweighted" and parameters.task_specific:
        smallest = _SMALLEST * values.abs().amax()
        values = torch.where(values.abs() < smallest, smallest, values)
    shared, task_specific = pull_back(values.to(losses.dtype))
    if heads == "unweighted":
        task_specific = {name: scale_rows(gradient, 1 / values) for name, gradient in task_specific.items()}
    return CombinedGradients(
        gradients={**shared, **task_specific},
        losses=losses,
        aux=aux,
        combination=Combination.from_weights(weights, list(shared.values())),
    )


def _combine(
    combiner: Combiner, jacobian: RowGradients, heads: Heads, tasks: TaskIds | None = None
) -> CombinedGradients:
    names = list(jacobian.shared)
    if not names:  # every task has a network of its own: there is nothing to combine
        zero = torch.zeros_like(jacobian.losses[0])
        combination = Combination([], None, residual=zero, status_code=zero.long())
        return CombinedGradients(dict(jacobian.task_specific), jacobian.losses, jacobian.aux, combination)
    if combiner.rows_per_task != 1:
        raise ArgumentError(f"{combiner!r} asks for {combiner.rows_per_task} rows a task, got 1: see combiner.backward")
    combination = combiner.combine([jacobian.shared[name] for name in names], jacobian.losses, tasks)
    task_specific = jacobian.task_specific
    if heads == "weighted":
        weights = head_weights(combiner, heads, combination.weights, jacobian.losses)
        task_specific = {name: scale_rows(gradient, weights) for name, gradient in task_specific.items()}
    return CombinedGradients(
        gradients={**dict(zip(names, combination.gradient, strict=True)), **task_specific},
        losses=jacobian.losses,
        aux=jacobian.aux,
        combination=combination,
    )


def _mean_over(ranks: Ranks, jacobian: RowGradients) -> RowGradients:
    blocks = [*jacobian.shared.values(), *jacobian.task_specific.values(), jacobian.losses]
    *means, losses = (total / ranks.size for total in Slicing(blocks, ranks).sum(blocks))
    count = len(jacobian.shared)
    return RowGradients(
        losses=losses,
        shared=dict(zip(jacobian.shared, means[:count], strict=True)),
        task_specific=dict(zip(jacobian.task_specific, means[count:], strict=True)),
        aux=jacobian.aux,
    )
