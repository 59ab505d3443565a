"""A Jacobian of which this process holds some columns, and other processes the others.

Inner products and norms of rows are sums over columns, so each process takes them of its own columns and the parts are
added. `gramian_of_blocks` and `row_norms` do so where they meet `Columns`; nothing else of a method needs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Peers(Protocol):
    """The processes that hold the columns."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same bits in each."""

    def gathered(self, values: Tensor) -> Tensor:
        """``[R, ...]``: what each of R processes holds, the same bits in each."""


class Columns(list[Tensor]):
    """Blocks ``[K, n]`` of the columns held here.

    Args:
        blocks: of this process.
        peers: who holds the other columns.
        shapes: of the whole blocks without their task axis.
        own: picks, from one tensor for each of ``shapes``, the entries that lie here; None for features.
    """

    def __init__(
        self,
        blocks: Iterable[Tensor],
        peers: Peers,
        shapes: Sequence[torch.Size] = (),
        own: Callable[[Sequence[Tensor]], list[Tensor]] | None = None,
    ) -> None:
        super().__init__(blocks)
        self.peers, self.shapes, self.own = peers, shapes, own


def takes_columns(combiner: object) -> bool:
    """Whether the class that defines how ``combiner`` combines, or one below it, says ``by_columns``."""
    for one in type(combiner).__mro__:
        if "by_columns" in vars(one):
            return bool(vars(one)["by_columns"])
        if {"combine", "combine_groups"} & vars(one).keys():
            return False
    return False


def with_blocks(jacobian: Sequence[Tensor], blocks: Iterable[Tensor]) -> list[Tensor]:
    """``blocks`` in place of those of ``jacobian``, held by the same processes."""
    if isinstance(jacobian, Columns):
        return Columns(blocks, jacobian.peers, jacobian.shapes, jacobian.own)
    return list(blocks)


def own_columns(blocks: Sequence[Tensor], draw: Callable[[int], Tensor]) -> list[Tensor]:
    """A number for each column, the same whoever holds it: tensors shaped as the blocks without their task axis.

    Args:
        blocks: the Jacobian.
        draw: makes that many numbers, the same ones in every process.
    """
    shapes = blocks.shapes if isinstance(blocks, Columns) else [block.shape[1:] for block in blocks]
    sizes = [shape.numel() for shape in shapes]
    whole = [piece.view(shape) for piece, shape in zip(draw(sum(sizes)).split(sizes), shapes, strict=True)]
    if not isinstance(blocks, Columns):
        return whole
    assert blocks.own is not None, "methods by entry are refused for features"
    return blocks.own(whole)
