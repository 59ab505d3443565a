"""Aligned-MTL: the task gradients are made orthogonal and equally long, as little changed as possible, then averaged.

Senushkin et al., CVPR 2023, arXiv 2305.19000.

With ``M = V L V'``, its eigenvalues, and B = ``sqrt(l) V L^(-1/2) V'``, the aligned gradients ``B G`` have the Gramian
``l I``: condition number one. ``d = (B G)' 1 / K``, so ``v = B 1 / K`` (the authors sum: ``reduction="sum"``). The
common squared length l is the smallest eigenvalue (``scale_mode="min"``), their median, or their mean (``"rmse"``). The
update can move against a task. Its length with ``"min"`` is that of the weakest direction: two nearly collinear
gradients make it small.

Departures from the authors' code: the sum is divided by K; eigenvalues below ``32 K 2^-52`` of the largest, in place of
``K 2^-52``, are dropped as rounding error. Where the rounding of the Gramian is more than a millionth of the smallest
that is kept, the status is ``INACCURATE``: the weights are those of the Gramian, but perhaps not of the gradients that
it is of. Eigenvalues of the Gramian depend on the gradients' scales, so norms more than a factor of about 1e4 apart are
beyond float64. A task whose gradient is zero is left out, with weight 0, but counts in K.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.pareto_safe import harmless
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.spectrum import Spectrum, decompose
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights, solved_where

TOLERANCE = 1e-6
"""Residual up to which the aligned gradients count as aligned."""


class AlignedMTL(GramianCombiner):
    """Mean of the aligned gradients. With one task ``d = g``.

    The residual is the largest entry of ``B M B - l P`` over l, P the projection on the eigenvectors that are kept; at
    least ``K 2^-52`` times the largest eigenvalue over the smallest kept, which no Gramian in float64 knows better.

    Args:
        scale_mode: which eigenvalue, among those kept, is the squared length of the aligned gradients: ``"min"``,
            ``"median"`` (the lower one of two) or ``"rmse"`` (their mean).
        pareto_safe: where the combination is uphill for a task, take the nearest one that is not; see
            `mtrl_imgrad.combiners.families.pareto_safe`. Off, as in the paper.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "aligned_mtl"
    departures = "Mean in place of the sum; eigenvalues at the level of rounding are dropped."
    citation = "senushkin2023independent"

    def __init__(
        self,
        scale_mode: Literal["min", "median", "rmse"] = "min",
        *,
        pareto_safe: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.scale_mode = scale_mode
        self.pareto_safe = pareto_safe

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``condition`` [...], largest over smallest kept singular value of the task gradients.
        """
        problem = normalize(gramian)
        spectrum = decompose(problem.values)
        square = self._square(spectrum)[..., None]
        balance = spectrum.apply((square / spectrum.values).sqrt())
        unaligned = balance @ problem.values @ balance / square[..., None] - spectrum.apply(
            torch.ones_like(problem.norms)
        )
        smallest = torch.where(spectrum.kept, spectrum.values, torch.inf).amin(-1)
        unknown = problem.num_tasks * 2.0**-52 * spectrum.values[..., -1] / smallest
        residual = torch.maximum(unaligned.abs().amax((-2, -1)), unknown)
        weights = problem.weights(
            torch.where(problem.nonzero, balance.sum(-1) / problem.num_tasks, 0.0),
            residual=residual,
            status_code=solved_where(residual <= TOLERANCE),
            extras={"condition": (spectrum.values[..., -1] / smallest).sqrt()},
        )
        return harmless(problem, weights) if self.pareto_safe else weights

    def _square(self, spectrum: Spectrum) -> Tensor:
        """The reference eigenvalue ``[...]``."""
        kept = spectrum.kept
        if self.scale_mode == "rmse":
            return torch.where(kept, spectrum.values, 0.0).sum(-1) / kept.sum(-1)
        if self.scale_mode == "min":
            return torch.where(kept, spectrum.values, torch.inf).amin(-1)
        # Eigenvalues ascend, and those that are kept come last.
        middle = kept.shape[-1] - kept.sum(-1, keepdim=True) + (kept.sum(-1, keepdim=True) - 1) // 2
        return spectrum.values.gather(-1, middle)[..., 0]
