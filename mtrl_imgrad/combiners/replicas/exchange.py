"""How the gradients of several ranks become those of one process.

Losses come multiplied by this rank's share of the task's rows, so every gradient here is a summand. Of the K gradients
each rank gets the sum in a slice of the parameters (reduce-scatter), the Gramians of the slices add up, and the slices
of the one combined gradient are joined (all-gather). Only a method by entry that keeps numbers for each entry, or that
does not say that slices are enough for it, gets all columns on every rank.

Features belong to the rows: each rank has columns of its own, and nothing is exchanged but the Gramian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtrl_imgrad.combiners.columns import Columns, takes_columns
from mtrl_imgrad.combiners.replicas.ranks import Ranks
from mtrl_imgrad.combiners.replicas.slicing import Slicing, as_real
from mtrl_imgrad.errors import ArgumentError

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

Gradients = Sequence[Tensor | None]


class Exchange:
    """The exchange of one step.

    Args:
        ranks: that make it.
        combined: the tensors whose K gradients are combined.
        by_features: whether these are features.
    """

    def __init__(self, ranks: Ranks, combined: Sequence[Tensor], by_features: bool) -> None:
        self.ranks = ranks
        self._combined, self._by_features = combined, by_features
        self._slicing = Slicing(() if by_features else combined, ranks)
        self._used = torch.zeros(len(combined), dtype=torch.bool, device="cpu")
        self._sliced = False

    def row(self, gradients: Gradients) -> list[Tensor | None]:
        """This rank's slices of a task's gradient, summed over the ranks; of features its own gradient."""
        self._used |= torch.tensor([gradient is not None for gradient in gradients], device="cpu")
        return list(gradients) if self._by_features else list(self._slicing.sum_slices(gradients))

    def all(self, flags: Sequence[bool]) -> list[bool]:
        """Which flags are true on every rank."""
        agreed: list[bool] = self.ranks.all(torch.tensor(list(flags), device="cpu")).tolist()
        return agreed

    def jacobian(self, combiner: Combiner, blocks: Gradients, count: int) -> list[Tensor]:
        """The Jacobian for the combiner: this rank's columns, or all.

        Args:
            combiner: decides whether slices will do.
            blocks: ``[K, n]`` of the rows kept, or features' ``[K, *shape]``.
            count: K.
        """
        some = self.ranks.any(self._used)  # a parameter that only other ranks' tasks use has a gradient here, too
        if not bool(some.any()):
            raise ArgumentError(f"no loss depends on any {'features' if self._by_features else 'parameter of shared'}")
        self._used = some
        columns = self.columns(blocks, count)
        self._sliced = takes_columns(combiner)
        return columns if self._sliced or self._by_features else self._slicing.whole(columns)

    def columns(self, blocks: Gradients, count: int) -> Columns:
        """This rank's columns of the Jacobian; arguments as for `jacobian`."""
        if not self._by_features:
            return self._slicing.columns([block for block in blocks if block is not None])
        zeros = [as_real(one.new_zeros(count, *one.shape)) for one in self._combined]
        return Columns(
            (zero if block is None else block for zero, block in zip(zeros, blocks, strict=True)), self.ranks
        )

    def joined(self, combined: Sequence[Tensor]) -> list[Tensor | None]:
        """The combined gradient, one for each tensor; None for one that no rank uses."""
        parts = self._slicing.join(combined) if self._sliced else self._slicing.as_parameters(combined)
        return [part if used else None for part, used in zip(parts, self._used.tolist(), strict=True)]

    def sum(self, tensors: Sequence[Tensor], gradients: Gradients) -> list[Tensor | None]:
        """The sum of the ranks' gradients, one for each of ``tensors``; None for one that no rank uses."""
        if not tensors:
            return []
        used = self.ranks.any(torch.tensor([gradient is not None for gradient in gradients], device="cpu")).tolist()
        total = Slicing(tensors, self.ranks).sum(gradients)
        return [part if there else None for part, there in zip(total, used, strict=True)]
