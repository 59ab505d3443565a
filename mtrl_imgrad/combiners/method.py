"""The interface of a method: its declarations, and the hooks of a step that it defines.

Users meet `mtrl_imgrad.combiners.base.Combiner`, which adds the calls of a training loop.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian
from mtrl_imgrad.combiners.references import references
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.stateful import Stateful
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

Reduction = Literal["mean", "sum"]


@checked
class Method(Stateful, ABC):
    """The part of a `Combiner` that a method defines.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"``, which multiplies the combination by the number of tasks,
            the convention of the vision papers.
    """

    needs: ClassVar[Literal["losses", "gramian", "matrix"]]
    """What one step asks for."""
    citation: ClassVar[str]
    """Key in ``references.bib``, from which `paper` and `bibtex` follow."""
    paper: ClassVar[str] = ""
    """Authors, title, venue, arXiv number."""
    bibtex: ClassVar[str] = ""
    departures: ClassVar[str] = ""
    """Where the method differs from its authors' code, in a sentence."""
    rows_per_task: int = 1
    """Rows of the Jacobian for every task: those of independent parts of its batch, where a method asks for them."""
    needs_losses_after_step: ClassVar[bool] = False
    """Whether `after_step` wants the losses of the same batch after the optimizer's step."""
    by_columns: ClassVar[bool] = False
    """Whether `combine` and `combine_groups` can do with some of the columns, held as `Columns`, and find their part of
    the combination from them. A class that redefines one of the two must set it again."""
    needs_all_tasks: ClassVar[bool] = False
    """Whether no task may be absent from a step."""
    returns_step: ClassVar[bool] = False
    """Whether the combination is an optimizer's step already, to be applied by plain SGD, and not a gradient."""
    per_task: ClassVar[tuple[str, ...]] = ()
    """Names of the arguments that may hold one value for each task."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the arguments of every method, a user's too, against their annotations."""
        super().__init_subclass__(**kwargs)
        checked(cls)
        if "citation" in vars(cls):
            entry = references()[cls.citation]
            cls.paper, cls.bibtex = entry.full, entry.bibtex

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    @abstractmethod
    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """`__call__` without its checks: no host copy, no synchronisation. What a training step calls."""

    def needs_jacobian(self, tasks: TaskIds | None = None) -> bool:
        """Whether the next step must bring the K gradients; if not, `weights_of_losses` is enough for it."""
        return True

    def weights_of_losses(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """The coefficients of a step for which `needs_jacobian` is False.

        Args:
            losses: ``[K]``.
            tasks: K task ids, or None.

        Raises:
            ArgumentError: if this step needs the gradients.
        """
        raise ArgumentError(f"{self.name} finds its update from the task gradients, not from the losses")

    @property
    def samples(self) -> bool:
        """Whether `draw_groups` may return groups."""
        return type(self).draw_groups is not Method.draw_groups

    def draw_groups(self, num_tasks: int) -> Tensor | None:
        """The groups of tasks that the next step looks at, for a method that samples: None to take all, one by one.

        Args:
            num_tasks: K.

        Returns:
            ``[n, K]`` float64 on the host: row i holds the weights of the tasks in the mean loss of group i.
        """
        return None

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """`combine` for a method that samples, from the gradients of the groups' mean losses.

        Args:
            jacobian: blocks ``[n, *shape]``.
            groups: what `draw_groups` returned.
            losses: ``[K]``, of the tasks.
            tasks: K task ids, or None.

        Returns:
            The combination; its weights are those of the K tasks.

        Raises:
            ArgumentError: if the method draws no groups.
        """
        raise ArgumentError(f"{self.name} draws no groups of tasks")

    def after_step(
        self,
        losses: Tensor,
        tasks: TaskIds | None = None,
        *,
        group: Any = None,
        rows: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Tell the combiner what the losses of the same batch are after the optimizer's step.

        Only methods with ``needs_losses_after_step`` look at them.

        Args:
            losses: ``[K]``, without a graph.
            tasks: K task ids, or None.
            group: as in `Combiner.backward`.
            rows: as in `Combiner.backward`.
        """

    def check_num_tasks(self, num_tasks: int) -> None:
        """Check the number of values of the arguments with one for each task, as soon as K is known.

        Args:
            num_tasks: K, absent tasks included.

        Raises:
            ArgumentError: if an argument holds values of another number of tasks; names it.
        """
        for argument in self.per_task:
            values = getattr(self, argument)
            if isinstance(values, Sequence) and len(values) != num_tasks:
                raise ArgumentError(
                    f"{argument} of {self.name} must hold an entry for each of the {num_tasks} tasks, got {len(values)}"
                )

    def _reduced(self, weights: Weights) -> Weights:
        """Weights in the unit of the mean, put into the unit that ``reduction`` asks for."""
        if self.reduction == "mean":
            return weights
        return dataclasses.replace(weights, values=weights.values * weights.values.shape[-1])
