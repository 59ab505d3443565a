"""A copy of the Jacobian that a method keeps from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.errors import ArgumentError


class BlockTable:
    """A row of numbers a task for every block of the Jacobian, zero at first: K x P numbers; a part of the state."""

    def __init__(self) -> None:
        self._tables: list[TaskTable] = []

    def rows(self, blocks: Sequence[Tensor], tasks: TaskIds | None) -> list[Tensor]:
        """The rows of ``tasks`` (of tasks 0 to K - 1 where that is None), shaped as ``blocks``."""
        if not self._tables:
            self._tables = [TaskTable(dtype=None) for _ in blocks]
        if len(blocks) != len(self._tables):
            raise ArgumentError(
                f"numbers are kept for every entry of {len(self._tables)} blocks, got {len(blocks)}: every step must "
                "bring the same parameters"
            )
        return [table.rows(block, tasks) for table, block in zip(self._tables, blocks, strict=True)]

    def write(self, blocks: Sequence[Tensor], tasks: TaskIds | None, where: Tensor) -> None:
        """Set the rows of ``tasks`` to ``blocks`` where the flag ``where`` is true."""
        for table, block in zip(self._tables, blocks, strict=True):
            table.write(block, tasks, where)

    def get_state(self) -> list[Tensor | None]:
        """A table ``[N, *shape]`` for each block; an empty list before the first step."""
        return [table.get_state() for table in self._tables]

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        if not isinstance(new_state, (list, tuple)):
            raise ArgumentError(f"numbers of every entry must be a list of tensors, got {type(new_state).__name__}")
        tables = [TaskTable(dtype=None) for _ in new_state]
        for table, values in zip(tables, new_state, strict=True):
            table.set_state(values)
        self._tables = tables
