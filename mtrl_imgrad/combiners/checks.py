"""Checks of Jacobians, losses and task ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.columns import with_blocks
from mtrl_imgrad.combiners.gramian import check_tensor, rows_of
from mtrl_imgrad.combiners.state.tables import TaskIds, check_task_ids
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

Jacobian = Tensor | Sequence[Tensor]


def blocks_of(jacobian: Jacobian) -> list[Tensor]:
    """A Jacobian as a list of blocks ``[K, *shape]``."""
    return [jacobian] if isinstance(jacobian, Tensor) else with_blocks(jacobian, jacobian)


def check_jacobian(jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> int:
    """Check a Jacobian, its losses and its task ids; return K."""
    if not isinstance(jacobian, (Tensor, Sequence)) or isinstance(jacobian, (str, bytes)):
        raise ArgumentError(f"jacobian must be a tensor [K, P] or a sequence of blocks, got {type(jacobian).__name__}")
    blocks = blocks_of(jacobian)
    if not blocks:
        raise ArgumentError("jacobian must hold at least one block, got an empty sequence")
    if isinstance(jacobian, Tensor) and jacobian.ndim != 2:
        raise ArgumentError(f"jacobian must be [K, P], got shape {tuple(jacobian.shape)}")
    for i, block in enumerate(blocks):
        check_tensor(f"jacobian block {i}", block)
    num_tasks = blocks[0].shape[0] if blocks[0].ndim else 0
    for i, block in enumerate(blocks):
        if block.ndim < 1 or block.shape[0] != num_tasks or num_tasks == 0:
            raise ArgumentError(
                f"jacobian block {i} must have one row for each of {num_tasks or 'K >= 1'} tasks, "
                f"got shape {tuple(block.shape)}"
            )
        _check_finite(rows_of(block), f"jacobian block {i}")
    if losses is not None:
        check_tensor("losses", losses)
        if losses.shape != (num_tasks,):
            raise ArgumentError(f"losses must have shape ({num_tasks},), got {tuple(losses.shape)}")
        _check_finite(losses[:, None], "losses")
    check_task_ids(tasks, num_tasks)
    return num_tasks


def check_losses(losses: Tensor, one_step: bool) -> None:
    """Check the shape and dtype of losses.

    Args:
        losses: ``[..., K]``.
        one_step: whether there must be no leading dimensions.
    """
    check_tensor("losses", losses)
    if losses.ndim < 1 or losses.shape[-1] == 0 or (one_step and losses.ndim != 1):
        raise ArgumentError(f"losses must be {'[K]' if one_step else '[..., K]'}, got shape {tuple(losses.shape)}")


def _check_finite(rows: Tensor, what: str) -> None:
    if rows.is_meta:
        raise ArgumentError(f"{what} must hold numbers, it lies on the meta device")
    non_finite = ~torch.isfinite(rows).all(dim=1)
    if bool(non_finite.any()):
        raise NonFiniteError(f"{what} is NaN or infinite in the row of task {int(non_finite.nonzero()[0, 0])}")
