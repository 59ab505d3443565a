"""How unbalanced the tasks are, as one number between 0 (as bad as can be) and 1 (balanced).

Source: Zhou, Liu, Zhao, Gong, "Injecting Imbalance Sensitivity for Multi-Task Learning", IJCAI 2025,
arXiv 2503.08006, its appendix on imbalance measures. All three are scale-free and read from the Gramian.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.active_set import VANISHING
from mtrl_imgrad.combiners.normalised import NormalisedGramian

__all__ = ["MEASURES", "direct", "plumb_line", "smallest_norm"]

MEASURES = ("pm", "lm", "dc")
"""Names accepted by ``measure``."""


def _safe_ratio(numerator: Tensor, denominator: Tensor, defined: Tensor) -> Tensor:
    return torch.where(defined, numerator / torch.where(defined, denominator, 1.0), 0.0)


def length(problem: NormalisedGramian, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Norm of ``weights @ jacobian`` [...] in normalised units, and whether it can be told from zero.

    A combination much shorter than what it adds up is rounding error: its square is a difference of float64 numbers.
    """
    products = (problem.values @ weights[..., None])[..., 0]
    norm = (weights * products).sum(-1).clamp_min(0).sqrt()
    summed = (weights * problem.norms).sum(-1)
    return norm, norm > VANISHING * summed


def plumb_line(problem: NormalisedGramian, min_norm_weights: Tensor) -> Tensor:
    """PM: cosine of the angle between the mean gradient and the min-norm point; the measure of the main paper.

    Where all tasks support the min-norm point the cosine equals the ratio of the two norms, which stays accurate
    near Pareto-stationary points. It is 0 where either vector vanishes.

    Args:
        problem: the Gramian, ``[..., K, K]``.
        min_norm_weights: ``[..., K]`` from `mtrl_imgrad.combiners.solvers.min_norm_point`.

    Returns:
        ``[...]`` in [0, 1].
    """
    shortest, defined = length(problem, min_norm_weights)
    uniform = torch.full_like(min_norm_weights, 1 / problem.num_tasks)
    mean, mean_defined = length(problem, uniform)
    full = ((min_norm_weights > 0) | ~problem.alive).all(-1)
    product = (problem.linear * min_norm_weights).sum(-1)
    numerator = torch.where(full, shortest * shortest, product)
    share = problem.alive.double().mean(-1)
    numerator = torch.where(full, numerator * share, numerator)
    return _safe_ratio(numerator, shortest * mean, defined & mean_defined).clamp(0, 1)


def smallest_norm(problem: NormalisedGramian) -> Tensor:
    """LM: cosine between the mean gradient and the shortest task gradient, clamped to [0, 1].

    The paper's range is [-1, 1], but a negative value makes IMGrad's problem non-convex, hence the clamp (ours).
    """
    uniform = torch.full_like(problem.norms, 1 / problem.num_tasks)
    mean, defined = length(problem, uniform)
    norms = torch.where(problem.alive, problem.norms, torch.inf)
    smallest, index = norms.min(-1, keepdim=True)
    product = problem.linear.gather(-1, index)[..., 0]
    return _safe_ratio(product, mean * smallest[..., 0], defined).clamp(0, 1)


def direct(problem: NormalisedGramian) -> Tensor:
    """DC: smallest over largest gradient norm, in (0, 1].

    The paper maps the imbalance ratio (largest over smallest norm) to a bounded number without stating the map
    in the text available to us; the reciprocal is our reading.
    """
    smallest = torch.where(problem.alive, problem.norms, torch.inf).amin(-1)
    largest = torch.where(problem.alive, problem.norms, 0.0).amax(-1)
    return smallest / largest
