"""ConFIG, conflict-free inverse gradients: the update has the same cosine with every task gradient.

Liu et al., ICLR 2025, arXiv 2408.11104.

The direction u is that of ``U^+ 1``, U the unit task gradients as rows; with n the norms and C the cosines,
``U^+ 1 = U' z`` with ``z = C^+ 1``. The length is the sum of the gradients' projections on it, ``sum_i g_i . u``; here
divided by K, in the unit of the mean (the paper's is ``reduction="sum"``).

Where the gradients are independent all cosines are equal and positive, and d is parallel to that of IMTL-G. Where they
are dependent, U^+ 1 is the least-squares answer: cosines as equal as can be, and conflicts may remain; d is zero where
no direction has a positive cosine on average (two opposed gradients).

Departures from the authors' code: the pseudo-inverse is taken on the K x K cosines, so nothing of the parameters' size
is decomposed; eigenvalues below ``32 K 2^-52`` of the largest count as zero. A task whose gradient is zero is left out,
with weight 0, but counts in K. The variant with momentum (M-ConFIG) is another method and not meant here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.optimality import VANISHING
from mtrl_imgrad.combiners.solvers.spectrum import decompose
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights, solved_where

TOLERANCE = 1e-9
"""Residual of the least-squares problem up to which an answer counts as solved."""


class ConFIG(GramianCombiner):
    """Combination with equal cosines. With one task ``d = g``.

    The residual is that of the normal equations, ``max |C (C z - 1)|``, in units of ``1 + sum_j |z_j|``.

    Args:
        reduction: ``"mean"`` or ``"sum"`` (the paper's).
    """

    name = "config"
    departures = "Mean in place of the sum; no momentum variant."
    citation = "liu2025config"

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`."""
        problem = normalize(gramian)
        ones = problem.nonzero.double()
        spectrum = decompose(problem.cosines)
        z = spectrum.times(1 / spectrum.values, ones)
        projections = (problem.cosines @ z[..., None])[..., 0]
        square = (z * projections).sum(-1, keepdim=True)
        # The part of 1 that some direction can meet: where it is rounding error, so is the direction.
        vanishing = square <= VANISHING**2 * problem.num_tasks
        length = (problem.norms * projections).sum(-1, keepdim=True) / problem.num_tasks
        values = torch.where(vanishing, 0.0, z * problem.inverse_norms * (length / square))
        misfit = (problem.cosines @ (projections - ones)[..., None])[..., 0].abs().amax(-1)
        residual = misfit / (1 + z.abs().sum(-1))
        return problem.weights(
            values,
            residual=residual,
            status_code=solved_where(residual <= TOLERANCE),
        )
