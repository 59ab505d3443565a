"""Base of the methods whose weights follow from the K losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.checks import Jacobian, blocks_of, check_losses
from mtrl_imgrad.combiners.gramian import gramian_of_blocks
from mtrl_imgrad.combiners.result import Combination, linear_combination
from mtrl_imgrad.combiners.state.parts import parts_of
from mtrl_imgrad.combiners.state.tables import TaskIds, check_task_ids
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError


class LossCombiner(Combiner):
    """A combiner whose weights follow from the K losses; a step needs one backward and no per-task gradients.

    Given a Jacobian all the same, it combines its rows, so that the methods can be compared and diagnosed.
    """

    needs = "losses"
    by_columns = True

    def needs_jacobian(self, tasks: TaskIds | None = None) -> bool:
        """False: see `Combiner.needs_jacobian`."""
        return False

    def weights_of_losses(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """The same as `weights`."""
        return self.weights(losses, tasks)

    def weights(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """Find the coefficients of the combination. A method with a memory takes this as one step.

        Args:
            losses: ``[..., K]``, any float dtype, any device; ``[K]`` for a method with a memory.
            tasks: K task ids, where the losses are not those of tasks 0 to K - 1.

        Returns:
            `Weights`, in float64 on the losses' device.
        """
        check_losses(losses, one_step=bool(parts_of(self)))
        check_task_ids(tasks, losses.shape[-1])
        return self._reduced(self.solve(losses.detach(), tasks))

    @abstractmethod
    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """`weights` in the unit of the mean: what a method defines."""

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`.

        Raises:
            ArgumentError: if the losses are missing.
        """
        if losses is None:
            raise ArgumentError(f"losses must be given: {self.name} finds its weights from them")
        blocks = blocks_of(jacobian)
        return linear_combination(jacobian, blocks, gramian_of_blocks(blocks), self.weights(losses, tasks))


def are_finite(losses: Tensor) -> Tensor:
    """``[...]``: whether all K losses of a step are finite; a method's state must move only where they are."""
    return torch.isfinite(losses).all(-1)


def weights_from(values: Tensor, losses: Tensor, extras: Mapping[str, Tensor] | None = None) -> Weights:
    """`Weights` of a method that solves nothing.

    Args:
        values: ``[..., K]`` coefficients.
        losses: ``[..., K]`` that they were found from; where one is not finite the coefficients become NaN.
        extras: what else the method reports, by name.
    """
    finite = are_finite(losses)
    return Weights(
        values=torch.where(finite[..., None], values.double(), torch.nan),
        residual=torch.where(finite, 0.0, torch.nan).double(),
        status_code=torch.where(finite, int(Status.SOLVED), int(Status.NON_FINITE)),
        extras=dict(extras or {}),
    )
