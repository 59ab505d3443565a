"""Parameters as flat vectors that are cut into one slice a rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.columns import Columns
from mtrl_imgrad.combiners.replicas.ranks import Ranks


class Slicing:
    """The layout of some tensors: end to end in one vector a number type, in equal slices a rank.

    Complex numbers count as two real ones, whose products are the real parts of the complex ones. Half precision is
    added up in float32.

    Args:
        like: the tensors, P entries together.
        ranks: R of them; a slice has P / R entries, the last may hold zeros beyond the end.
    """

    def __init__(self, like: Sequence[Tensor], ranks: Ranks) -> None:
        self.ranks = ranks
        self._like = [tensor.detach() for tensor in like]
        self._vectors: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        """For each vector the tensors that lie in it."""
        for place, tensor in enumerate(self._like):
            self._vectors.setdefault((_wide(tensor.dtype), tensor.device), []).append(place)

    def flatten(self, values: Sequence[Tensor | None]) -> list[Tensor]:
        """One tensor shaped as each of ``like`` (None counts as zero) as vectors of length R n."""
        return [
            self._vector([self._value(values[place], place) for place in places], dtype)
            for (dtype, _), places in self._vectors.items()
        ]

    def sum_slices(self, values: Sequence[Tensor | None]) -> list[Tensor]:
        """This rank's slices ``[n]`` of the sum over the ranks."""
        return [self.ranks.sum_slices(vector) for vector in self.flatten(values)]

    def join(self, slices: Sequence[Tensor]) -> list[Tensor]:
        """Tensors shaped as ``like``, of the slices that the ranks hold."""
        return self._restore([self.ranks.join_slices(one) for one in slices])

    def sum(self, values: Sequence[Tensor | None]) -> list[Tensor]:
        """The sum over the ranks, whole and with the same bits on each."""
        return self.join(self.sum_slices(values))

    def columns(self, blocks: Sequence[Tensor]) -> Columns:
        """This rank's columns of a Jacobian, for `Combiner.combine`.

        Args:
            blocks: ``[K, n]``, of K times what `sum_slices` returned.
        """
        return Columns(blocks, self.ranks, [as_real(tensor).shape for tensor in self._like], self._pick)

    def whole(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """All columns, as real blocks ``[K, *shape]`` on every rank."""
        # Task by task: slices are joined as vectors, which have no task axis.
        rows = [self.join([block[k] for block in columns]) for k in range(len(columns[0]))]
        return [as_real(torch.stack(list(parts))) for parts in zip(*rows, strict=True)]

    def as_parameters(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Real tensors in the form of ``like``."""
        return [
            torch.view_as_complex(part.contiguous()) if one.is_complex() else part
            for one, part in zip(self._like, parts, strict=True)
        ]

    def _pick(self, values: Sequence[Tensor]) -> list[Tensor]:
        """This rank's slices of real tensors."""
        vectors = self.flatten(self.as_parameters(values))
        return [vector.chunk(self.ranks.size)[self.ranks.rank] for vector in vectors]

    def _value(self, value: Tensor | None, place: int) -> Tensor:
        return torch.zeros_like(self._like[place]) if value is None else value.detach()

    def _vector(self, values: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        vector = torch.cat([as_real(value).reshape(-1).to(dtype) for value in values])
        return torch.nn.functional.pad(vector, (0, -len(vector) % self.ranks.size))  # to equal slices

    def _restore(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        tensors: list[Tensor] = [torch.empty(0)] * len(self._like)
        for places, vector in zip(self._vectors.values(), vectors, strict=True):
            start = 0  # the padding stays behind at the vector's end
            for place in places:
                real = as_real(self._like[place])
                piece = vector[start : start + real.numel()].view(real.shape)
                tensors[place] = torch.view_as_complex(piece) if self._like[place].is_complex() else piece
                start += real.numel()
        return tensors


def as_real(tensor: Tensor) -> Tensor:
    """A dense real tensor; a complex one gets a last axis of real and imaginary part."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _wide(dtype: torch.dtype) -> torch.dtype:
    dtype = dtype.to_real()
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
