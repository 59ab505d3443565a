"""Eigenvalues of a Gramian or of cosines, those that are rounding error told apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.optimality import ROUNDING


class Spectrum(NamedTuple):
    """``matrix = vectors @ diag(values) @ vectors'``, values ascending.

    Attributes:
        values: ``[..., K]``, 1 where not ``kept``.
        vectors: ``[..., K, K]``, columns.
        kept: ``[..., K]`` mask of the eigenvalues above rounding error.
    """

    values: Tensor
    vectors: Tensor
    kept: Tensor

    def apply(self, function_of_values: Tensor) -> Tensor:
        """``[..., K, K]`` the matrix with other eigenvalues ``[..., K]``, zero where not ``kept``."""
        scaled = self.vectors * torch.where(self.kept, function_of_values, 0.0)[..., None, :]
        return scaled @ self.vectors.mT

    def times(self, function_of_values: Tensor, vector: Tensor) -> Tensor:
        """`apply`, multiplied by a vector ``[..., K]``. Large entries that cancel are never formed."""
        parts = (vector[..., None, :] @ self.vectors)[..., 0, :]
        parts = torch.where(self.kept, function_of_values * parts, 0.0)
        return (self.vectors @ parts[..., None])[..., 0]


def decompose(matrix: Tensor) -> Spectrum:
    """Decompose a positive semi-definite ``[..., K, K]``.

    Eigenvalues below ``32 K 2^-52`` of the largest are rounding error. On a GPU the host waits for the decomposition.
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > ROUNDING * matrix.shape[-1] * values[..., -1:]
    return Spectrum(torch.where(kept, values, 1.0), vectors, kept)
