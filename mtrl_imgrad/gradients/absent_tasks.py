"""NaN and inf in a task's loss or gradient: ``on_nonfinite``, for both engines.

* ``"raise"`` (the default everywhere): an error, and nothing moves.
* ``"skip"``: the step is left out, as if its batch had never been drawn; the combiner keeps its state.
* ``"drop_task"``: the tasks concerned are absent from the step (`Combiner` keeps what it remembers of a task by the
  task's id), the others are combined as if there were no more of them. Where none is left, the step is skipped.

The last two cost one device sync for each network and step.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import rows_of
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import index_of
from mtrl_imgrad.combiners.weights import Status
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import check

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

OnNonFinite = Literal["raise", "skip", "drop_task"]


def check_on_nonfinite(on_nonfinite: object, *combiners: Combiner) -> None:
    """Check the argument of that name, for the combiners that it is to go with."""
    check("on_nonfinite", on_nonfinite, OnNonFinite)
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


def combine_finite(
    finite: Sequence[bool],
    losses: Tensor,
    on_nonfinite: OnNonFinite,
    combine: Callable[[list[int]], Combination],
    tasks: Sequence[int] | None = None,
) -> Combination:
    """A step in which some task is not finite, as `on_nonfinite` says: left out, or made without those tasks.

    Args:
        finite: K flags.
        losses: ``[K]``.
        on_nonfinite: ``"skip"`` or ``"drop_task"``.
        combine: makes the step with the tasks of these rows only.
        tasks: ids of the K; 0 to K - 1 where it is None.

    Returns:
        The combination as one of all K tasks: the weights of those left out are zero, their inner products and whatever
        else the method reports of them NaN.
    """
    ids = range(len(finite)) if tasks is None else tasks
    present = [row for row, is_finite in enumerate(finite) if is_finite]
    absent = [task for task, is_finite in zip(ids, finite, strict=True) if not is_finite]
    if on_nonfinite == "skip" or not present:
        return no_step(losses, absent)
    some = combine(present)
    non_finite = tuple(sorted({*some.non_finite, *absent}))
    return dataclasses.replace(some if some.skipped else _spread(some, present, len(ids)), non_finite=non_finite)


def no_step(losses: Tensor, non_finite: Sequence[int]) -> Combination:
    """The report of a step that was left out.

    Args:
        losses: ``[K]``.
        non_finite: tasks whose loss or gradient was not finite.
    """
    status = torch.full((), int(Status.NON_FINITE), device=losses.device)
    residual = torch.full((), torch.nan, dtype=torch.float64, device=losses.device)
    return Combination([], None, residual, status, non_finite=tuple(non_finite), skipped=True)


def after_step(
    combiner: Combiner, combination: Combination, losses: Tensor, group: Any = None, rows: Sequence[float] | None = None
) -> None:
    """`Combiner.after_step`, for the tasks of the step only.

    Args:
        combiner: that made the step.
        combination: its report, of all K tasks and not skipped.
        losses: ``[K]`` after it.
        group: of the ranks that made the step, or None.
        rows: K numbers of rows, or None.
    """
    tasks = None
    if combination.non_finite:
        tasks = [task for task in range(len(losses)) if task not in combination.non_finite]
        losses = losses[index_of(tasks, losses.device)]
        rows = None if rows is None else [rows[task] for task in tasks]
    if group is None:
        combiner.after_step(losses, tasks)
    else:
        combiner.after_step(losses, tasks, group=group, rows=rows)


class NonFiniteCounts:
    """Counts of skipped steps, and of steps without a task.

    Args:
        task_names: the K tasks.
    """

    def __init__(self, task_names: Sequence[str]) -> None:
        self.tasks = dict.fromkeys(task_names, 0)
        """Steps for which the task's loss or gradient was not finite."""
        self.skipped_steps = 0

    def add(self, combination: Combination, where: str) -> None:
        """Count a step, and warn if it is the first of which something was left out.

        Args:
            combination: its report.
            where: which step it was, for the warning.
        """
        if not combination.non_finite and not combination.skipped:
            return
        names = list(self.tasks)
        non_finite = [names[task] for task in combination.non_finite]
        if not self.skipped_steps and not any(self.tasks.values()):
            whose = f"of {', '.join(map(repr, non_finite))} " if non_finite else ""
            what = "it was skipped" if combination.skipped else "it was made without them"
            warnings.warn(
                f"{where}: a loss or gradient {whose}is NaN or infinite; {what}. Such steps are counted", stacklevel=3
            )
        for name in non_finite:
            self.tasks[name] += 1
        self.skipped_steps += combination.skipped

    def get_state(self) -> dict[str, Any]:
        """The counts."""
        return {"tasks": dict(self.tasks), "skipped_steps": self.skipped_steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state`."""
        self.tasks = {name: int(state["tasks"][name]) for name in self.tasks}
        self.skipped_steps = int(state["skipped_steps"])


def _spread(some: Combination, present: Sequence[int], num_tasks: int) -> Combination:
    """A combination of the tasks in the rows ``present`` as one of all K."""
    count = len(present)
    index = index_of(present, some.residual.device)

    def spread(rows: Tensor, fill: float) -> Tensor:
        return rows.new_full((num_tasks, *rows.shape[1:]), fill).index_copy(0, index, rows)

    return dataclasses.replace(
        some,
        weights=None if some.weights is None else spread(some.weights, 0.0),
        gramian=None if some.gramian is None else spread(spread(some.gramian, torch.nan).T, torch.nan).T,
        extras={
            name: spread(value, torch.nan) if value.shape == (count,) and value.is_floating_point() else value
            for name, value in some.extras.items()
        },
    )
