"""MGDA, the multiple-gradient descent algorithm: the shortest convex combination of the task gradients.

Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Acad. Sci. 2012; Sener
and Koltun, NeurIPS 2018, arXiv 1810.04650.

``w = argmin over the simplex of |G'w|^2``, ``d = G'w``. At the optimum ``g_i . d >= |d|^2`` for every task, so d
improves all tasks or is zero (a Pareto-stationary point).

Sener and Koltun also scale the gradients before the min-norm point is sought, ``g_i / n_i`` with n_i the norm
(``"l2"``), the loss (``"loss"``) or both (``"loss+"``); their trainer combines the gradients as they were with the
weights found. Taken at the representation that the tasks share, ``backward(features=...)``, it is their MGDA-UB: one
backward through the trunk in place of K.

Departures from the authors' code: the min-norm point is exact, where theirs is iterative and stops early; a
task whose gradient is zero is left out, where the letter of the method would return the zero update.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.simplex_problems import min_norm_point
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count

Normalization = Literal["none", "l2", "loss", "loss+"]
_SMALLEST_LOSS = 1e-6
"""Beside the largest."""


class MGDA(GramianCombiner):
    """Min-norm point of the task gradients.

    Args:
        normalization: what gradients are divided by before the min-norm point is sought: ``"none"``, ``"l2"`` their
            norms, ``"loss"`` the losses, ``"loss+"`` both. Losses count by their size, and as at least 1e-6 of the
            largest.
        combine_normalized: combine the gradients so divided, as LibMTL does; by default the weights go to the
            gradients as they are, as in the authors' trainer.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "mgda"
    departures = "Exact, where the authors' projected gradient may stop early or spin for ever."
    citation = "sener2018multi"

    def __init__(
        self,
        normalization: Normalization = "none",
        *,
        combine_normalized: bool = False,
        update_every: Count = 1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.normalization = normalization
        self.combine_normalized = combine_normalized

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights on the simplex, by n with ``combine_normalized``; see `GramianCombiner.weights`."""
        plain = problem = normalize(gramian)
        divisors = torch.ones_like(plain.norms)
        if self.normalization != "none":
            divisors = self._divisors(plain, losses)
            problem = normalize(plain.values / (divisors[..., :, None] * divisors[..., None, :]))
        solution = min_norm_point(problem)
        values = solution.weights / divisors if self.combine_normalized else solution.weights
        return plain.weights(
            problem.nan_unless_finite(values),
            base=1 / plain.num_tasks,
            residual=problem.nan_unless_finite(solution.residual),
            status_code=solution.status_code,
        )

    def _divisors(self, problem: NormalizedGramian, losses: Tensor | None) -> Tensor:
        """``[..., K]``, positive."""
        norms = torch.where(problem.nonzero, problem.norms, 1.0) * problem.scale.sqrt()[..., None]
        if self.normalization == "l2":
            return norms
        if losses is None:
            raise ArgumentError(f"losses must be given: normalization={self.normalization!r} divides by them")
        sizes = losses.detach().double().abs()
        largest = sizes.amax(-1, keepdim=True)
        sizes = torch.where(largest == 0, 1.0, torch.maximum(sizes, _SMALLEST_LOSS * largest))
        sizes = torch.where(torch.isfinite(largest), sizes, torch.nan)
        return sizes * norms if self.normalization == "loss+" else sizes
