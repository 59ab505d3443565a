"""Imbalance measures of the task gradients: one number between 0 (unbalanced) and 1 (balanced).

Zhou et al., IJCAI 2025, arXiv 2503.08006, appendix on imbalance measures. All three are scale-free and follow from the
Gramian.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.solvers.optimality import VANISHING
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution


def _ratio(numerator: Tensor, denominator: Tensor, defined: Tensor) -> Tensor:
    return torch.where(defined, numerator / denominator, 0.0).clamp(0, 1)


def _mean_stands(problem: NormalizedGramian) -> Tensor:
    """Whether the mean gradient can be told from zero."""
    return problem.mean_norm > VANISHING * problem.norms.mean(-1)


def plumb_line(problem: NormalizedGramian, shortest: SimplexSolution) -> Tensor:
    """PM: cosine of the angle between the mean gradient and the min-norm point; the paper's measure.

    Where all tasks support the min-norm point the cosine is the ratio of the two norms, which stays accurate
    near Pareto-stationary points. It is 0 where either vector vanishes.

    Args:
        problem: the Gramian, ``[..., K, K]``.
        shortest: its `mtrl_imgrad.combiners.solvers.simplex_problems.min_norm_point`.

    Returns:
        ``[...]`` in [0, 1].
    """
    norm = shortest.multipliers.sum(-1).reciprocal()
    # The multipliers have length 1, so their gradients' summed lengths are the cancellation in the min-norm point.
    stands = (shortest.multipliers * problem.norms).sum(-1) < (1 - VANISHING) / VANISHING
    full = (shortest.weights > 0).all(-1)
    product = torch.where(full, norm * norm, (problem.linear * shortest.weights).sum(-1))
    return _ratio(product, norm * problem.mean_norm, stands & _mean_stands(problem))


def smallest_norm(problem: NormalizedGramian) -> Tensor:
    """LM: cosine between the mean gradient and the shortest task gradient, clamped to [0, 1].

    The paper's range is [-1, 1], but a negative value makes IMGrad's problem non-convex, hence the clamp
    (ours).

    Returns:
        ``[...]``, 0 where the mean gradient vanishes.
    """
    smallest, index = torch.where(problem.nonzero, problem.norms, torch.inf).min(-1, keepdim=True)
    product = problem.linear.gather(-1, index)[..., 0]  # with the mean gradient
    return _ratio(product, problem.mean_norm * smallest[..., 0], _mean_stands(problem))


def direct(problem: NormalizedGramian) -> Tensor:
    """DC: smallest over largest gradient norm.

    The paper maps the imbalance ratio (largest over smallest norm) to a bounded number without stating the
    map in the text available to us; the reciprocal is our reading.

    Returns:
        ``[...]`` in (0, 1].
    """
    smallest = torch.where(problem.nonzero, problem.norms, torch.inf).amin(-1)
    return smallest / problem.norms.amax(-1)
