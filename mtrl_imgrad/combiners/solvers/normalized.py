"""A Gramian made safe to solve on: float64, unit mean diagonal, zero and non-finite tasks told apart.

Every Gramian method starts here, so that the policy for bad input is written once:

* scaling all gradients changes nothing, because the Gramian is divided by the mean of its diagonal;
* a task whose gradient is zero is left out (``nonzero`` is False) and keeps its base weight;
* if every gradient is zero the answer is the base weights, status ``ZERO_GRADIENTS``;
* if an entry is NaN or infinite the answer is NaN, status ``NON_FINITE``; nothing is raised and nothing is
  copied to the host, so that a training step on a GPU may look at the status when it suits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import ZERO_NORM, check_gramian
from mtrl_imgrad.combiners.weights import Status, Weights, solved_where

_SMALLEST_SCALE = 1e-300
"""Squared norms below this are denormal numbers and hold no digits; such gradients count as zero."""


@dataclass(frozen=True)
class NormalizedGramian:
    """A Gramian ready for the solvers. Batch dimensions lead; everything is on the Gramian's device.

    Attributes:
        values: ``[..., K, K]`` float64 with unit mean diagonal; the identity where the input was not usable.
        scale: ``[...]`` what the input was divided by.
        norms: ``[..., K]`` gradient norms in these units, zero where not ``nonzero``.
        inverse_norms: ``[..., K]`` their reciprocals, zero where not ``nonzero``.
        nonzero: ``[..., K]`` mask of the non-zero gradients; all True where every gradient is zero.
        mean: ``[K]`` weights of the mean gradient, sum 1; ``1 / K`` each unless the rows are groups of tasks.
        linear: ``[..., K]`` inner products of the mean gradient with each task.
        mean_norm: ``[...]`` norm of the mean gradient.
        finite: ``[...]`` whether all entries were finite.
        zero: ``[...]`` whether every gradient is zero.
    """

    values: Tensor
    scale: Tensor
    norms: Tensor
    inverse_norms: Tensor
    nonzero: Tensor
    mean: Tensor
    linear: Tensor
    mean_norm: Tensor
    finite: Tensor
    zero: Tensor

    @property
    def num_tasks(self) -> int:
        """K."""
        return self.values.shape[-1]

    @property
    def cosines(self) -> Tensor:
        """``[..., K, K]`` cosines between the gradients; zero in the row and column of a zero gradient."""
        return self.values * (self.inverse_norms[..., :, None] * self.inverse_norms[..., None, :])

    def weights(
        self,
        values: Tensor,
        *,
        base: Tensor | float | None = None,
        residual: Tensor | None = None,
        status_code: Tensor | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Weights:
        """Put the answers for zero and non-finite input in place and wrap everything up.

        Args:
            values: ``[..., K]`` coefficients found.
            base: ``[..., K]`` coefficients where every gradient is zero; None for those of the mean gradient.
            residual: ``[...]`` of the method's optimality conditions; 0 is reported where every gradient is zero. None
                for a method that solves nothing.
            status_code: ``[...]`` of the solver, if there is one.
            extras: what else the method reports, by name.
        """
        base = self.mean if base is None else base
        residual = torch.zeros_like(self.scale) if residual is None else residual
        status_code = solved_where(torch.ones_like(self.zero)) if status_code is None else status_code
        return Weights(
            values=self.nan_unless_finite(torch.where(self.zero[..., None], base, values)),
            residual=self.nan_unless_finite(torch.where(self.zero, 0.0, residual)),
            status_code=self.status_code(status_code),
            extras={name: self.nan_unless_finite(value) for name, value in (extras or {}).items()},
        )

    def status_code(self, status_code: Tensor) -> Tensor:
        """``[...]`` status codes, overruled where the input was zero or not finite."""
        status_code = torch.where(self.zero, int(Status.ZERO_GRADIENTS), status_code)
        return torch.where(self.finite, status_code, int(Status.NON_FINITE))

    def nan_unless_finite(self, values: Tensor) -> Tensor:
        """``values`` [...] or [..., K], NaN where the input was not finite."""
        finite = self.finite[..., None] if values.ndim > self.finite.ndim else self.finite
        return torch.where(finite, values, torch.nan)


def normalize(gramian: Tensor, mean: Tensor | None = None) -> NormalizedGramian:
    """Check the shape and normalize; see `NormalizedGramian`.

    Args:
        gramian: ``[..., K, K]``, any floating dtype.
        mean: ``[K]`` weights of the mean gradient, sum 1; None weighs all rows alike.
    """
    check_gramian(gramian)
    gramian = gramian.detach().double()
    gramian = 0.5 * (gramian + gramian.mT)  # matrix products round (i, j) and (j, i) differently
    scale = gramian.diagonal(dim1=-2, dim2=-1).sum(-1) / gramian.shape[-1]
    finite = torch.isfinite(gramian.sum((-2, -1)))  # a NaN or inf anywhere is one in the sum
    usable = finite & (scale > _SMALLEST_SCALE)
    eye = torch.eye(gramian.shape[-1], dtype=torch.float64, device=gramian.device)
    scale = torch.where(usable, scale, 1.0)
    # The solvers never meet NaN or zero: they solve on the identity, and `NormalizedGramian.weights` overrules them.
    values = torch.where(usable[..., None, None], gramian, eye) / scale[..., None, None]
    squares = values.diagonal(dim1=-2, dim2=-1)
    nonzero = squares > ZERO_NORM**2 * squares.amax(-1, keepdim=True)
    norms = torch.where(nonzero, squares, 0.0).sqrt()
    if mean is None:
        mean = torch.full_like(values[..., 0], 1 / gramian.shape[-1])
    linear = (values * mean[..., None, :]).sum(-1)  # M mean
    return NormalizedGramian(
        values=values,
        scale=scale,
        norms=norms,
        inverse_norms=torch.where(nonzero, norms.reciprocal(), 0.0),
        nonzero=nonzero,
        mean=mean,
        linear=linear,
        mean_norm=(linear * mean).sum(-1).clamp_min(0).sqrt(),
        finite=finite,
        zero=finite & ~usable,
    )
