"""GradVac, gradient vaccine: task gradients that are less alike than they used to be are turned towards each other.

Wang et al., ICLR 2021, arXiv 2010.05874.

As PCGrad, but with a target r_ij for the cosine of every pair in place of zero. For each task i start with
``d_i = g_i`` and visit the other tasks j in random order; with f the cosine of d_i and g_j, where ``f < r_ij``,

    d_i <- d_i + |d_i| (r sqrt(1 - f^2) - f sqrt(1 - r^2)) / (|g_j| sqrt(1 - r^2)) g_j,

which makes their cosine r. Then ``r_ij <- (1 - beta) r_ij + beta f``. Last, ``d = sum_i d_i / K``. Targets start at
zero; with beta = 0 they stay there, which is PCGrad.

Departures from the authors' method: one set of targets for all shared parameters, where the paper also has one a layer;
the sum of the d_i is divided by K (theirs is the sum: ``reduction="sum"``); no epsilons, but targets count as at most
1 - 1e-6. Targets of pairs with a zero gradient, and all of them on a step that is not finite, are left as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.pareto_safe import harmless
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.state.randomness import random_orders
from mtrl_imgrad.combiners.state.tables import PairTable, TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Probability, Seed

_HIGHEST_TARGET = 1 - 1e-6
"""A cosine of one is out of reach."""


class GradVac(GramianCombiner):
    """Mean of the task gradients, each turned towards those it has grown unlike. With one task ``d = g``.

    Nothing is solved, so the residual is zero. It keeps a target for every pair of tasks and a generator, so it takes
    one Gramian at a time.

    Args:
        beta: rate at which targets follow the cosines, in [0, 1]; the paper's is 0.01.
        seed: of the generator of the orders; None (default): the run's, see `Combiner.set_random_seed`.
        pareto_safe: where the combination is uphill for a task, take the nearest one that is not; see
            `mtrl_imgrad.combiners.families.pareto_safe`. Off, as in the paper.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "gradvac"
    departures = "One set of targets for all shared parameters; mean in place of the sum; no epsilons."
    citation = "wang2021gradient"

    def __init__(
        self,
        beta: Probability = 0.01,
        *,
        seed: Seed | None = None,
        pareto_safe: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta
        self.pareto_safe = pareto_safe
        self._generator = self._seed_generator(seed)
        self._targets = PairTable()

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` coefficients; see `GramianCombiner.weights`. Moves the targets on.

        Extras: ``projections``, how many times a gradient was turned.
        """
        problem = normalize(gramian)
        if gramian.ndim != 2:
            raise ArgumentError(f"gramian must be [K, K] for {self.name}, got shape {tuple(gramian.shape)}")
        targets = self._targets.block(problem.values, tasks)
        orders = random_orders(problem.values, self._generator)
        parts, targets, projections = _turned(problem, targets, orders, self.beta)
        self._targets.write(targets, tasks)
        own = torch.where(problem.nonzero, 0.0, 1.0)
        weights = problem.weights(
            (parts.sum(-2) * problem.inverse_norms + own) / problem.num_tasks,
            extras={"projections": projections},
        )
        return harmless(problem, weights) if self.pareto_safe else weights


def _turned(problem: NormalizedGramian, targets: Tensor, orders: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``[K, K]`` of all d_i on the unit gradients, the next targets, and how many turns were made."""
    cosines = problem.cosines
    usable = problem.finite & ~problem.zero
    parts = torch.diag_embed(problem.norms)
    tasks = torch.arange(problem.num_tasks, device=parts.device)[:, None]
    turns = torch.zeros_like(problem.scale)
    for step in range(problem.num_tasks):
        other = orders[:, step : step + 1]  # each task's opponent in this round
        product = (cosines[other[:, 0]] * parts).sum(-1, keepdim=True)
        length = ((parts @ cosines) * parts).sum(-1, keepdim=True).clamp_min(0).sqrt()
        meets = (other != tasks) & problem.nonzero[other] & (length > 0) & usable
        cosine = torch.where(meets, product / length, 0.0).clamp(-1.0, 1.0)
        current = targets.gather(-1, other)
        target = current.clamp_max(_HIGHEST_TARGET)
        turn = meets & (cosine < target)
        sine = (1 - cosine * cosine).sqrt()
        # As much of the opponent's unit gradient as brings the cosine to its target.
        move = length * (target * sine / (1 - target * target).sqrt() - cosine)
        parts = parts.scatter_add(-1, other, torch.where(turn, move, 0.0))
        targets = targets.scatter(-1, other, torch.where(meets, (1 - beta) * current + beta * cosine, current))
        turns = turns + turn.sum()
    return parts, targets, turns
