"""What becomes of a step in which some task's loss or gradient is NaN or infinite.

* ``"raise"`` (the default everywhere): an error, and nothing moves.
* ``"skip"``: the step is left out, as if its batch had never been drawn; the combiner does not hear of it.
* ``"drop_task"``: the tasks concerned are absent from the step (`Combiner` keeps what it remembers of a task by the
  task's id), the others are combined as if there were no more of them. Where none is left, the step is skipped.

The last two look at the gradients before the combiner does, which waits for the device once a network and step.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from mtrl_imgrad.combiners.arguments import check_choice
from mtrl_imgrad.combiners.gramian import rows_of
from mtrl_imgrad.combiners.result import Combination, Status
from mtrl_imgrad.combiners.state.tables import index_of
from mtrl_imgrad.errors import ArgumentError

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

__all__ = [
    "NonFiniteCounts",
    "OnNonFinite",
    "check_on_nonfinite",
    "finite_rows",
    "no_step",
    "tell_losses_after",
    "with_absent_tasks",
]

OnNonFinite = Literal["raise", "skip", "drop_task"]


def check_on_nonfinite(on_nonfinite: object, *combiners: Combiner) -> None:
    """Check the argument of that name, for the combiners that it is to go with.

    Raises:
        ArgumentError: if it is none of the three, or one of the combiners cannot do without a task.
    """
    check_choice("on_nonfinite", on_nonfinite, get_args(OnNonFinite))
    for combiner in combiners:
        if on_nonfinite == "drop_task" and combiner.needs_all_tasks:
            raise ArgumentError(f"on_nonfinite='drop_task' does not go with {combiner.name}, which needs all tasks")


def finite_rows(blocks: Iterable[Tensor], losses: Tensor) -> Tensor:
    """``[K]`` bool: whether a task's loss and all entries of its rows are finite.

    Args:
        blocks: ``[K, *shape]`` each, on one device.
        losses: ``[K]``.
    """
    finite = torch.isfinite(losses)
    for block in blocks:
        # A sum is finite only if all its terms are. Half precision could overflow in a sum of finite numbers.
        sums = rows_of(block).sum(1, dtype=torch.promote_types(block.dtype, torch.float32))
        finite = finite & torch.isfinite(sums)
    return finite


def no_step(losses: Tensor, non_finite: Sequence[int]) -> Combination:
    """The report of a step that was left out.

    Args:
        losses: ``[K]``.
        non_finite: tasks whose loss or gradient was not finite.
    """
    status = torch.full((), int(Status.NON_FINITE), device=losses.device)
    residual = torch.full((), torch.nan, dtype=torch.float64, device=losses.device)
    return Combination([], None, residual, status, non_finite=tuple(non_finite), skipped=True)


def with_absent_tasks(found: Combination, present: Sequence[int], tasks: Sequence[int]) -> Combination:
    """A combination of some of K tasks, told as one of all K.

    The weights of the others are zero, their inner products and whatever else the method reports of them NaN.

    Args:
        found: of ``len(present)`` tasks.
        present: their rows among the K.
        tasks: the ids of the K.
    """
    if found.skipped:
        return dataclasses.replace(found, non_finite=_absent(found, present, tasks))
    num_tasks, count = len(tasks), len(present)
    index = index_of(present, found.residual.device)

    def spread(rows: Tensor, first: float) -> Tensor:
        return rows.new_full((num_tasks, *rows.shape[1:]), first).index_copy(0, index, rows)

    gramian = found.gramian
    if gramian is not None:
        gramian = spread(spread(gramian, torch.nan).T, torch.nan).T
    return dataclasses.replace(
        found,
        weights=None if found.weights is None else spread(found.weights, 0.0),
        gramian=gramian,
        extras={
            name: spread(value, torch.nan) if value.shape == (count,) and value.is_floating_point() else value
            for name, value in found.extras.items()
        },
        non_finite=_absent(found, present, tasks),
    )


def tell_losses_after(
    combiner: Combiner, found: Combination, losses: Tensor, group: Any = None, rows: Sequence[float] | None = None
) -> None:
    """`Combiner.after_step`, for the tasks of the step only.

    Args:
        combiner: that made the step.
        found: its report, of all K tasks and not skipped.
        losses: ``[K]`` after it.
        group: of the ranks that made the step, or None.
        rows: K numbers of rows, or None.
    """
    tasks = None
    if found.non_finite:
        tasks = [task for task in range(len(losses)) if task not in found.non_finite]
        losses = losses[index_of(tasks, losses.device)]
        rows = None if rows is None else [rows[task] for task in tasks]
    if group is None:
        combiner.after_step(losses, tasks)
    else:
        combiner.after_step(losses, tasks, group=group, rows=rows)


class NonFiniteCounts:
    """What was left out of steps, and of which tasks.

    Args:
        task_names: the K tasks.
    """

    def __init__(self, task_names: Sequence[str]) -> None:
        self.tasks = dict.fromkeys(task_names, 0)
        """Steps for which the task's loss or gradient was not finite."""
        self.skipped_steps = 0

    def add(self, found: Combination, where: str) -> None:
        """Count a step, and warn if it is the first of which something was left out.

        Args:
            found: its report.
            where: which step it was, for the warning.
        """
        if not found.non_finite and not found.skipped:
            return
        names = list(self.tasks)
        lost = [names[task] for task in found.non_finite]
        if not self.skipped_steps and not any(self.tasks.values()):
            whose = f"of {', '.join(map(repr, lost))} " if lost else ""
            what = "it was skipped" if found.skipped else "it was made without them"
            warnings.warn(
                f"{where}: a loss or gradient {whose}is NaN or infinite; {what}. Such steps are counted", stacklevel=3
            )
        for name in lost:
            self.tasks[name] += 1
        self.skipped_steps += found.skipped

    def get_state(self) -> dict[str, Any]:
        """The counts."""
        return {"tasks": dict(self.tasks), "skipped_steps": self.skipped_steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state`."""
        self.tasks = {name: int(state["tasks"][name]) for name in self.tasks}
        self.skipped_steps = int(state["skipped_steps"])


def _absent(found: Combination, present: Sequence[int], tasks: Sequence[int]) -> tuple[int, ...]:
    rows = set(range(len(tasks))) - set(present)
    return tuple(sorted({*found.non_finite, *(tasks[row] for row in rows)}))
