"""Base of the methods whose weights follow from the K x K Gramian."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.gramian import check_gramian, gramian_of_blocks
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination, linear_combination
from mtrl_imgrad.combiners.state.frozen_weights import FrozenWeights
from mtrl_imgrad.combiners.state.tables import TaskIds, check_task_ids
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count


class GramianCombiner(Combiner):
    """A combiner whose weights follow from the K x K Gramian alone.

    Args:
        update_every: solve on every n-th step and use the weights found on the steps between, which then need no
            task gradients. A step with a task that the weights were not found for solves as well.
        reduction: ``"mean"`` or ``"sum"``.
    """

    needs = "gramian"
    by_columns = True

    def __init__(self, *, update_every: Count = 1, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.update_every = update_every
        self._frozen = FrozenWeights(self.update_every) if self.update_every > 1 else None

    def needs_jacobian(self, tasks: TaskIds | None = None) -> bool:
        """See `Combiner.needs_jacobian`."""
        return self._frozen is None or self._frozen.due(tasks)

    def weights_of_losses(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """See `Combiner.weights_of_losses`."""
        if self._frozen is None or self._frozen.due(tasks):
            return super().weights_of_losses(losses, tasks)
        return self._reduced(self._frozen.recall(losses, tasks))

    def weights(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """Solve for the coefficients of the combination, ``gradient = values @ jacobian``.

        Args:
            gramian: ``[..., K, K]`` symmetric positive semi-definite, any float dtype, any device.
            losses: ``[..., K]``, for the methods that look at them.
            tasks: K task ids, where the rows are not those of tasks 0 to K - 1.

        Returns:
            `Weights`, in float64 on the Gramian's device.

        Raises:
            ArgumentError: if the Gramian is not square and floating point, or there are several and the method takes
                one at a time.
        """
        check_gramian(gramian)
        check_task_ids(tasks, gramian.shape[-1])
        if self._frozen is None:
            return self._reduced(self.solve(gramian, losses, tasks))
        if gramian.ndim != 2:
            raise ArgumentError(f"gramian must be [K, K] with update_every > 1, got shape {tuple(gramian.shape)}")
        if self._frozen.due(_ids(gramian, tasks)):
            return self._reduced(self._frozen.keep(self.solve(gramian, losses, tasks), tasks))
        return self._reduced(self._frozen.recall(gramian[0], tasks))

    @abstractmethod
    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """`weights` in the unit of the mean: what a method defines."""

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`."""
        blocks = blocks_of(jacobian)
        gramian = gramian_of_blocks(blocks)
        return linear_combination(jacobian, blocks, gramian, self.weights(gramian, losses, tasks))


def _ids(rows: Tensor, tasks: TaskIds | None) -> TaskIds:
    """Whose rows they are; those of all tasks are not those of the last step where one was absent then."""
    return range(rows.shape[0]) if tasks is None else tasks
