"""Base of the methods that work on the gradients elementwise. Blocks, one a parameter, are never joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.checks import Jacobian
from mtrl_imgrad.combiners.columns import Columns
from mtrl_imgrad.combiners.gramian import rows_of
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.weights import Status


class MatrixCombiner(Combiner):
    """A combiner that works on the Jacobian elementwise."""

    needs = "matrix"


def row_norms(blocks: Sequence[Tensor]) -> Tensor:
    """Norms of the task gradients, ``[K]`` float64; NaN or infinite exactly where a gradient is not finite."""
    norms = [torch.linalg.vector_norm(rows_of(block), dim=1, dtype=torch.float64) for block in blocks]
    joined = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return torch.linalg.vector_norm(blocks.peers.gathered(joined), dim=0) if isinstance(blocks, Columns) else joined


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
