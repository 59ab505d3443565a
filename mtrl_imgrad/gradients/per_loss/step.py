"""A step of `Combiner.backward`: which way leads to the gradient of the shared parameters, and the way by weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients.absent_tasks import combine_finite, no_step
from mtrl_imgrad.gradients.heads import head_weights
from mtrl_imgrad.gradients.per_loss.combine import (
    as_parameters,
    check_losses,
    check_status,
    combine,
    filled,
    used_blocks,
)
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Losses, Options
from mtrl_imgrad.gradients.per_loss.task_gradients import (
    Gathering,
    Gradients,
    differentiate,
    gradients_of,
    is_finite,
    unscaled,
)
from mtrl_imgrad.gradients.per_loss.write import write_gradients

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner


@dataclass(frozen=True)
class Step:
    """One step on one batch."""

    combiner: Combiner
    inputs: Inputs
    options: Options
    losses: Losses

    def make(self) -> Combination:
        """In the way that the combiner asks for, and without the tasks whose losses may be left out and are."""
        if self.options.on_nonfinite != "raise":
            finite = torch.isfinite(self.losses.values).tolist()
            if not all(finite):
                losses, on_nonfinite = self.losses, self.options.on_nonfinite
                return combine_finite(finite, losses.values, on_nonfinite, self._make_some, losses.ids)
        by_weights = not self.combiner.needs_jacobian(self.losses.ids)
        if not by_weights and (self.inputs.features or not self.combiner.samples):
            return self.by_losses()
        # Weights and groups are chosen before the gradients are known, which may turn out not to be finite.
        restore = self.combiner.restore_point()
        try:
            combination = self.by_weights() if by_weights else self.by_groups()
        except BaseException:
            restore()
            raise
        if combination.skipped:
            restore()
        return combination

    def _make_some(self, rows: Sequence[int]) -> Combination:
        return replace(self, losses=self.losses.some(rows)).make()

    def by_losses(self) -> Combination:
        """A backward a task, down to the parameters or to the features."""
        gathering = Gathering()
        differentiate(self.losses, self.inputs, self.options, gathering)
        return combine(self.combiner, self.inputs, self.options, gathering.finish())

    def by_weights(self) -> Combination:
        """One backward of the weighted sum, and one down to the tasks' own parameters where these are not weighted.

        Weights that are all the same, as those of linear scalarization, need no second one: dividing by them does.
        """
        values = self.losses.values
        self._check_losses(values)
        weights = self.combiner.weights_of_losses(values, self.losses.tasks)
        check_status(self.combiner, self.options, weights, values)
        tensors, split = self.inputs.shared.tensors, len(self.inputs.shared.tensors)
        unweighted = self.options.heads == "unweighted" and bool(self.inputs.task_specific.tensors)
        first = weights.values[0]
        uniform = unweighted and bool((weights.values == first).all() & (first != 0))
        plain = unweighted and not uniform
        if not plain:
            tensors = tensors + self.inputs.task_specific.tensors
        gradients = self._summed(tensors, weights.values, plain or self.options.retain_graph)
        shared, task_specific = gradients[:split], gradients[split:]
        if plain:
            task_specific = self._task_specific_gradients(torch.ones_like(weights.values))
        elif uniform:
            task_specific = [None if one is None else one / first.to(one.device) for one in task_specific]
        if all(gradient is None for gradient in shared):
            raise ArgumentError("no loss depends on any parameter of shared")
        if not self._is_finite([*shared, *task_specific]):
            return self._without_culprit("the weighted losses")
        write_gradients(self.inputs, self.options, shared, task_specific)
        return Combination.from_weights(weights, filled(self.inputs.shared.tensors, shared))

    def by_groups(self) -> Combination:
        """A backward a group of tasks, and one through the heads alone; `by_losses` if there are no groups."""
        values = self.losses.values
        self._check_losses(values)
        groups = self.combiner.draw_groups(len(values))
        if groups is None:
            return self.by_losses()
        gathering = Gathering()
        for row, shares in enumerate(groups):
            members = shares.nonzero()[:, 0].tolist()
            losses = [self.losses.parts[i] for i in members]
            retain = row < len(groups) - 1 or bool(self.inputs.task_specific.tensors) or self.options.retain_graph
            gradients = self._gradients(losses, self.inputs.shared.tensors, shares[members], retain)
            if self.inputs.exchange is not None:
                gradients = self.inputs.exchange.row(gradients)
            gathering.add(row, values[0], gradients, [])
        gathered = gathering.finish()
        if not self._is_finite_everywhere(gathered.blocks):
            return self._without_culprit("a group's mean loss")
        blocks = used_blocks(self.combiner, self.inputs, gathered)
        combination = self.combiner.combine_groups(blocks, groups, values, self.losses.tasks)
        weights = head_weights(self.combiner, self.options.heads, combination.weights, values)
        task_specific = self._task_specific_gradients(weights)
        if not self._is_finite(task_specific):
            return self._without_culprit("a task's own parameters")
        shared = as_parameters(self.inputs, combination.gradient, gathered)
        write_gradients(self.inputs, self.options, shared, task_specific)
        return replace(combination, gradient=filled(self.inputs.shared.tensors, shared))

    def _gradients(
        self, losses: Sequence[Tensor], tensors: Sequence[Tensor], weights: Tensor, retain_graph: bool
    ) -> list[Tensor | None]:
        scaled = gradients_of(losses, tensors, weights, self.options, retain_graph)
        return [unscaled(gradient, self.options) for gradient in scaled]

    def _summed(self, tensors: list[Tensor], weights: Tensor, retain_graph: bool) -> list[Tensor | None]:
        """Gradients of the weighted sum of the losses, over the rows of all ranks."""
        summed = self._gradients(self.losses.parts, tensors, weights, retain_graph)
        return summed if self.inputs.exchange is None else self.inputs.exchange.sum(tensors, summed)

    def _task_specific_gradients(self, weights: Tensor) -> list[Tensor | None]:
        task_specific = self.inputs.task_specific.tensors
        return self._summed(task_specific, weights, self.options.retain_graph) if task_specific else []

    def _check_losses(self, values: Tensor) -> None:
        if self.options.checks_finite:
            check_losses(values, self.losses.ids)

    def _is_finite(self, gradients: Gradients) -> bool:
        return not self.options.checks_finite or is_finite(gradients)

    def _is_finite_everywhere(self, gradients: Gradients) -> bool:
        """`_is_finite`, on every rank."""
        finite = self._is_finite(gradients)
        return finite if self.inputs.exchange is None else self.inputs.exchange.all([finite])[0]

    def _without_culprit(self, of: str) -> Combination:
        """An error, or no step, where the joint gradient of several tasks is not finite."""
        if self.options.on_nonfinite == "raise":
            raise NonFiniteError(f"the gradient of {of} is NaN or infinite, though the losses are not")
        return no_step(self.losses.values, ())
