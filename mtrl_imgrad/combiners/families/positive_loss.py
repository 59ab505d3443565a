"""Methods that take the logarithm or the inverse of a loss, and so need losses above a bound.

Losses of supervised learning are positive. Those of an actor in reinforcement learning are not: give a ``lower_bound``
below all of them, and the method works on the losses less that bound. What a method cannot use it never uses in
silence: calling the combiner and `Combiner.backward` raise, and on the hot path, where nothing can, the weights are NaN
and the status is ``NOT_POSITIVE``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, check_jacobian
from mtrl_imgrad.combiners.families.loss import LossCombiner, are_finite, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds, values_of_tasks
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Finite

LowerBound = Finite | Annotated[Sequence[Finite], MinLen(1)]
"""One number for all tasks, or one for each task, by id."""


class PositiveLossCombiner(LossCombiner):
    """A combiner whose weights follow from the losses less a lower bound, all of which must be positive.

    Args:
        lower_bound: what is taken from the losses: a number below all that will come, or one for each task.
        reduction: ``"mean"`` or ``"sum"``.
    """

    per_task = ("lower_bound",)

    def __init__(self, *, lower_bound: LowerBound = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.lower_bound = tuple(map(float, lower_bound)) if isinstance(lower_bound, Sequence) else lower_bound

    def __call__(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """As `Combiner.__call__`.

        Raises:
            ArgumentError: also if a loss is not above its bound; names the row.
            NonFiniteError: as there.
        """
        check_jacobian(jacobian, losses, tasks)
        if losses is not None:
            low = ~(self.above(losses.detach(), tasks) > 0)
            if bool(low.any()):
                row = int(low.nonzero()[0, 0])
                raise ArgumentError(
                    f"{self.name} needs losses above lower_bound={self.lower_bound}, got {float(losses[row])} in the "
                    f"row of task {row}"
                )
        return self.combine(jacobian, losses, tasks)

    def above(self, losses: Tensor, tasks: TaskIds | None) -> Tensor:
        """The losses less their bounds, ``[..., K]`` float64.

        Raises:
            ArgumentError: if there is no bound for a task.
        """
        losses = losses.double()
        if isinstance(self.lower_bound, float):
            return losses - self.lower_bound
        bounds = values_of_tasks("lower_bound", self.lower_bound, losses.shape[-1], tasks)
        return losses - torch.tensor(bounds, dtype=torch.float64, device="cpu").to(losses.device, non_blocking=True)


def are_usable(losses: Tensor, above: Tensor) -> Tensor:
    """``[...]``: whether all K losses of a step are finite and above their bound."""
    return are_finite(losses) & (above > 0).all(-1)


def weights_above(values: Tensor, losses: Tensor, above: Tensor, extras: Mapping[str, Tensor] | None = None) -> Weights:
    """`weights_from`, with NaN and ``NOT_POSITIVE`` where a loss is not above its bound.

    Args:
        values: ``[..., K]`` coefficients.
        losses: ``[..., K]`` that they were found from.
        above: ``[..., K]``, what must be positive.
        extras: what else the method reports, by name.
    """
    low = are_finite(losses) & ~(above > 0).all(-1)
    return weights_from(values, losses, extras).unless(low, Status.NOT_POSITIVE)
