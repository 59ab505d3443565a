"""Tables of numbers by task, and counters: parts of a combiner's state, see `mtrl_imgrad.combiners.state.parts`.

Tasks are known by their id, so that a task may be absent from a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError

TaskIds = Sequence[int]
"""Which task each row is of; numbers from 0 on, no number twice."""
MOST_TASKS = 100_000
"""Tables have a row for every id up to the largest, so ids that are no numbering would fill the memory."""


class Counter:
    """A number of steps, counted on the host."""

    def __init__(self) -> None:
        self.value = 0

    def get_state(self) -> int:
        """The count."""
        return self.value

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        if not isinstance(new_state, int) or isinstance(new_state, bool) or new_state < 0:
            raise ArgumentError(f"a count must be an integer >= 0, got {new_state!r}")
        self.value = new_state


class TaskTable:
    """A row of numbers a task, made when its task is first seen.

    Args:
        first: what a new task's row is filled with.
        dtype: of the rows; None takes that of the first rows written or asked for.
    """

    def __init__(self, first: float = 0.0, dtype: torch.dtype | None = torch.float64) -> None:
        self.first = first
        self.dtype = dtype
        self.values: Tensor | None = None
        """``[N, ...]``, N one more than the largest task id seen, or None before the first task."""

    def rows(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """The rows of ``tasks`` (of tasks 0 to K - 1 where that is None).

        Args:
            like: ``[K, ...]``, whose shape and device the rows have.
            tasks: K task ids.
        """
        self._grow(like, tasks)
        assert self.values is not None, "made by _grow"
        return self.values[: like.shape[0]] if tasks is None else self.values[index_of(tasks, like.device)]

    def write(self, rows: Tensor, tasks: TaskIds | None, where: Tensor | None = None) -> None:
        """Set the rows of ``tasks``.

        Args:
            rows: ``[K, ...]``.
            tasks: K task ids, or None.
            where: a flag on the same device; the rows stay as they are where it is false.
        """
        old = self.rows(rows, tasks)
        assert self.values is not None, "made by rows"
        new = rows.detach().to(self.values.dtype)
        new = new.clone() if where is None else torch.where(where, new, old)
        if tasks is None and len(self.values) == len(new):
            self.values = new
        else:
            self.values = self.values.clone()
            if tasks is None:
                self.values[: len(new)] = new
            else:
                self.values[index_of(tasks, new.device)] = new

    def knows(self, tasks: TaskIds) -> bool:
        """Whether there is a row for each of these tasks."""
        return self.values is not None and max(tasks, default=-1) < len(self.values)

    def get_state(self) -> Tensor | None:
        """All rows, ``[N, ...]``."""
        return None if self.values is None else self.values.clone()

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        if new_state is None:
            self.values = None
            return
        if not isinstance(new_state, Tensor) or new_state.ndim == 0 or not new_state.is_floating_point():
            raise ArgumentError(f"a table must be a floating point tensor [N, ...] or None, got {new_state!r}")
        self.values = new_state.to(self.dtype or new_state.dtype, copy=True)

    def _grow(self, like: Tensor, tasks: TaskIds | None) -> None:
        """Make the table large enough, and bring it to the device of ``like`` (and to its dtype, if none is set)."""
        needed = like.shape[0] if tasks is None else max(tasks) + 1
        if self.values is None:
            self.values = like.new_empty(0, *like.shape[1:], dtype=self.dtype or like.dtype)
        if self.values.shape[1:] != like.shape[1:]:
            raise ArgumentError(
                f"rows of shape {tuple(self.values.shape[1:])} are kept of every task, got {tuple(like.shape[1:])}"
            )
        self.values = self.values.to(like.device, self.dtype or like.dtype)
        if needed > len(self.values):
            more = self.values.new_full((needed - len(self.values), *self.values.shape[1:]), self.first)
            self.values = torch.cat([self.values, more])


class PairTable:
    """A number for every ordered pair of tasks, zero at first."""

    def __init__(self) -> None:
        self.values: Tensor | None = None
        """``[N, N]`` float64, or None before the first task."""

    def block(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """The numbers of the pairs among ``tasks`` (among tasks 0 to K - 1 where that is None).

        Args:
            like: ``[K, K]``, whose shape and device the block has.
            tasks: K task ids.
        """
        values = self._grown(like, tasks)
        count = like.shape[0]
        if tasks is None:
            return values[:count, :count]
        index = index_of(tasks, values.device)
        return values[index[:, None], index]

    def write(self, block: Tensor, tasks: TaskIds | None) -> None:
        """Set the numbers of the pairs among ``tasks`` to ``block`` [K, K]."""
        values = self._grown(block, tasks).clone()
        if tasks is None:
            values[: len(block), : len(block)] = block
        else:
            index = index_of(tasks, values.device)
            values[index[:, None], index] = block
        self.values = values

    def get_state(self) -> Tensor | None:
        """All numbers, ``[N, N]``."""
        return None if self.values is None else self.values.clone()

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        square = isinstance(new_state, Tensor) and new_state.ndim == 2 and new_state.shape[0] == new_state.shape[1]
        if new_state is not None and not (square and new_state.is_floating_point()):
            raise ArgumentError(f"a table of pairs must be a floating point matrix [N, N] or None, got {new_state!r}")
        self.values = None if new_state is None else new_state.to(torch.float64, copy=True)

    def _grown(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        needed = like.shape[0] if tasks is None else max(tasks) + 1
        if self.values is None:
            return like.new_zeros(needed, needed, dtype=torch.float64)
        more = max(0, needed - len(self.values))
        return torch.nn.functional.pad(self.values.to(like.device), (0, more, 0, more))


def index_of(tasks: Iterable[int], device: torch.device) -> Tensor:
    """Task ids as an index on ``device``, copied there without a wait (indexing by a list would wait)."""
    return torch.tensor(list(tasks), dtype=torch.int64, device="cpu").to(device, non_blocking=True)


def check_task_ids(tasks: TaskIds | None, num_rows: int) -> None:
    """Check the task ids of a step."""
    if tasks is None:
        return
    if not isinstance(tasks, (Sequence, np.ndarray)):  # neither a set, which has no order, nor an iterator
        raise ArgumentError(f"tasks must be a sequence of one id for each of {num_rows} rows, got {tasks!r}")
    numbers = list(tasks)
    if len(numbers) != num_rows:
        raise ArgumentError(f"tasks must hold one id for each of {num_rows} rows, got {len(numbers)}")
    if not all(isinstance(task, Integral) and not isinstance(task, bool) and task >= 0 for task in numbers):
        raise ArgumentError(f"tasks must be integers >= 0, got {numbers}")
    if max(numbers, default=0) >= MOST_TASKS:
        raise ArgumentError(f"tasks must be numbered from 0 on, below {MOST_TASKS}, got {max(numbers)}")
    if len(set(numbers)) != len(numbers):
        raise ArgumentError(f"tasks must not name a task twice, got {numbers}")


def values_of_tasks(argument: str, values: Sequence[float], num_tasks: int, tasks: TaskIds | None) -> list[float]:
    """The K numbers of a step's tasks, from an argument with one number for each task id."""
    ids = range(num_tasks) if tasks is None else tasks
    if max(ids) >= len(values) or (tasks is None and len(values) != num_tasks):
        raise ArgumentError(f"{argument} must hold a number for each of the tasks {list(ids)}, got {len(values)}")
    return [values[task] for task in ids]
