"""What the methods that work on the gradients entry by entry have in common.

Blocks stay as they come, one a parameter; none of these functions joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian
from mtrl_imgrad.combiners.columns import Columns
from mtrl_imgrad.combiners.gramian import rows_of
from mtrl_imgrad.combiners.result import Combination, Status
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.errors import ArgumentError

__all__ = ["BlockTable", "combination", "row_norms", "scale_rows", "wide"]


def row_norms(blocks: Sequence[Tensor]) -> Tensor:
    """Norms of the task gradients, ``[K]`` float64; NaN or infinite exactly where a gradient is not finite."""
    norms = [torch.linalg.vector_norm(rows_of(block), dim=1, dtype=torch.float64) for block in blocks]
    found = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return torch.linalg.vector_norm(blocks.peers.gathered(found), dim=0) if isinstance(blocks, Columns) else found


def scale_rows(block: Tensor, factors: Tensor) -> Tensor:
    """A block ``[K, *shape]`` with row k multiplied by ``factors[k]``, in the block's dtype."""
    return block * factors.to(block.dtype).view(-1, *(1 for _ in block.shape[1:]))


def wide(block: Tensor) -> Tensor:
    """A block without a graph, in float32 where it came in half precision, which holds no running averages."""
    block = block.detach()
    return block.float() if block.dtype in (torch.float16, torch.bfloat16) else block


def combination(
    jacobian: Jacobian,
    gradient: Sequence[Tensor],
    finite: Tensor,
    *,
    zero: Tensor | None = None,
    weights: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Combination:
    """The answer of a method that solves nothing: residual 0, or NaN throughout where the input is not finite.

    Args:
        jacobian: what came in; the gradient has its form and dtypes.
        gradient: tensors ``[*shape]``, one a block.
        finite: scalar, whether the input was finite.
        zero: scalar, whether the answer is zero because every gradient is; None where it is not.
        weights: ``[K]`` where the method is linear in the rows.
        extras: what the method reports, by name.
    """
    like = [jacobian] if isinstance(jacobian, Tensor) else jacobian
    parts = [torch.where(finite, part, torch.nan).to(block.dtype) for part, block in zip(gradient, like, strict=True)]
    status = torch.where(finite, int(Status.SOLVED), int(Status.NON_FINITE))
    if zero is not None:
        status = torch.where(zero, int(Status.ZERO_GRADIENTS), status)
    return Combination(
        gradient=parts[0] if isinstance(jacobian, Tensor) else parts,
        weights=None if weights is None else torch.where(finite, weights, torch.nan),
        residual=torch.where(finite, 0.0, torch.nan).double(),
        status_code=status,
        extras=dict(extras or {}),
    )


class BlockTable:
    """A row of numbers a task for every block of the Jacobian, zero at first: K x P numbers; a part of the state."""

    def __init__(self) -> None:
        self._tables: list[TaskTable] = []

    def rows(self, blocks: Sequence[Tensor], tasks: TaskIds | None) -> list[Tensor]:
        """The rows of ``tasks`` (of tasks 0 to K - 1 where that is None), shaped as ``blocks``.

        Raises:
            ArgumentError: if there were other blocks before: which numbers belong to which could not be told.
        """
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
        """Restore `get_state`.

        Raises:
            ArgumentError: if it is not a list of tensors with a task axis.
        """
        if not isinstance(new_state, (list, tuple)):
            raise ArgumentError(f"numbers of every entry must be a list of tensors, got {type(new_state).__name__}")
        tables = [TaskTable(dtype=None) for _ in new_state]
        for table, values in zip(tables, new_state, strict=True):
            table.set_state(values)
        self._tables = tables
