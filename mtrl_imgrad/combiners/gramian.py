"""The Gramian of the task gradients: inner products, cosines, combinations of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.columns import Columns
from mtrl_imgrad.combiners.precision import without_autocast
from mtrl_imgrad.errors import ArgumentError

ZERO_NORM = 1e-12
"""A gradient whose norm is below this fraction of the largest one counts as zero."""


def check_tensor(argument: str, value: object) -> None:
    """Check that ``value`` is a dense tensor of floating point numbers."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        got = value.layout if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(f"{argument} must be a dense tensor, got {got}")
    if not value.is_floating_point():
        raise ArgumentError(f"{argument} must be floating point, got {value.dtype}")


def check_gramian(gramian: Tensor, one_step: bool = False) -> None:
    """Check the shape and dtype of a Gramian.

    Args:
        gramian: ``[..., K, K]``.
        one_step: whether there must be no leading dimensions.
    """
    check_tensor("gramian", gramian)
    if gramian.ndim < 2 or gramian.shape[-1] != gramian.shape[-2] or gramian.shape[-1] == 0:
        raise ArgumentError(f"gramian must be [..., K, K] with K >= 1, got shape {tuple(gramian.shape)}")
    if one_step and gramian.ndim != 2:
        raise ArgumentError(f"gramian must be [K, K], one at a time, got shape {tuple(gramian.shape)}")


def rows_of(block: Tensor) -> Tensor:
    """A block ``[K, *shape]`` as a detached matrix ``[K, -1]``; a scalar parameter has one column."""
    block = block.detach()
    return block.flatten(1) if block.ndim > 1 else block[:, None]


def scale_rows(block: Tensor, factors: Tensor) -> Tensor:
    """A block ``[K, *shape]`` with row k multiplied by ``factors[k]``, in the block's dtype."""
    return block * factors.to(block.dtype).view(-1, *(1 for _ in block.shape[1:]))


def gramian_of_blocks(blocks: Sequence[Tensor]) -> Tensor:
    """Inner products of the task gradients, ``M[i, j] = g_i . g_j``.

    Half-precision blocks are accumulated in float32, the sum over blocks is in float64. With float32 blocks,
    squares underflow below norms of about 1e-19 and overflow above 1e19; give float64 blocks beyond that.

    Args:
        blocks: tensors ``[K, *shape]``, one for each parameter; `Columns` are added up over their processes.

    Returns:
        ``[K, K]`` float64 on the blocks' device.
    """
    total: Tensor | None = None
    for block in blocks:
        rows = rows_of(block)
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        with without_autocast(rows.device):
            product = (rows @ rows.T).double()
        total = product if total is None else total + product
    assert total is not None, "checked by the caller"
    if isinstance(blocks, Columns):
        total = blocks.peers.total(total)
    # Matrix products round (i, j) and (j, i) differently, which an exact solver would take for a contradiction.
    return (total + total.T) / 2


def combine_blocks(values: Tensor, blocks: Sequence[Tensor]) -> list[Tensor]:
    """``values @ block`` for every block, in the block's dtype: ``[K]`` and ``[K, *shape]`` give ``[*shape]``."""
    if not blocks:
        return []
    with without_autocast(blocks[0].device):
        return [(values.to(block.dtype) @ rows_of(block)).view(block.shape[1:]) for block in blocks]


def is_nonzero(gramian: Tensor) -> Tensor:
    """``[..., K]`` mask of the tasks whose gradient is not zero beside the largest one."""
    squares = gramian.diagonal(dim1=-2, dim2=-1)
    largest = squares.amax(-1, keepdim=True)
    return (squares > ZERO_NORM**2 * largest) & (largest > 0)


def correlation(gramian: Tensor) -> Tensor:
    """Cosines between the task gradients, ``[..., K, K]``; zero in the row and column of a zero gradient."""
    gramian = gramian.double()
    norms = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    inverse = torch.where(is_nonzero(gramian), 1 / norms, torch.zeros_like(norms))
    return (gramian * inverse[..., :, None] * inverse[..., None, :]).clamp(-1.0, 1.0)
