"""PCGrad, gradient surgery: from each task gradient take the part that points against another one, in random order.

Yu et al., NeurIPS 2020, arXiv 2001.06782.

For each task i start with ``d_i = g_i`` and visit the other tasks j in random order: where ``d_i . g_j < 0``,
``d_i <- d_i - (d_i . g_j) / |g_j|^2 g_j`` with the original g_j. Then ``d = sum_i d_i / K``. Every d_i is a combination
of the task gradients, so the whole procedure runs on coefficients and inner products.

Departures from the authors' code: the sum of the d_i is divided by K (theirs is the sum: ``reduction="sum"``); the
order is really random, where theirs throws its shuffled list away; a task never meets itself, as in the paper, where
theirs lets it. For two tasks no conflict is left; for more, later projections may bring earlier conflicts back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.pareto_safe import harmless
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.state.randomness import in_order, random_orders
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Seed


class PCGrad(GramianCombiner):
    """Mean of the task gradients, each projected off those that it conflicts with. With one task ``d = g``.

    Nothing is solved, so the residual is zero. Orders are drawn on the host from the combiner's own generator, one
    for each task and each member of a batch; under ``torch.compile``, ``torch.vmap`` or in a CUDA graph use
    ``shuffle=False``.

    Args:
        shuffle: visit the other tasks in random order, as in the paper; False visits them by index, which is
            deterministic, but then the result depends on how the tasks are numbered.
        seed: of the generator of the orders; None (default): the run's, see `Combiner.set_random_seed`.
        pareto_safe: where the combination is uphill for a task, take the nearest one that is not; see
            `mtrl_imgrad.combiners.families.pareto_safe`. Off, as in the paper.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "pcgrad"
    departures = "Mean in place of the sum; the order is really random; a task does not meet itself."
    citation = "yu2020gradient"

    def __init__(
        self,
        shuffle: bool = True,
        *,
        seed: Seed | None = None,
        pareto_safe: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.shuffle = shuffle
        self.pareto_safe = pareto_safe
        generator = self._seed_generator(seed)
        if self.shuffle:
            self._generator = generator

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``projections`` [...], how many conflicts were projected away.
        """
        problem = normalize(gramian)
        orders = random_orders(problem.values, self._generator) if self.shuffle else in_order(problem.values)
        parts, projections = _projected(problem, orders)
        own = torch.where(problem.nonzero, 0.0, 1.0)
        weights = problem.weights(
            (parts.sum(-2) * problem.inverse_norms + own) / problem.num_tasks,
            extras={"projections": projections},
        )
        return harmless(problem, weights) if self.pareto_safe else weights


def _projected(problem: NormalizedGramian, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of all d_i on the unit gradients, ``[..., K, K]``, and the number of projections ``[...]``."""
    cosines = problem.cosines
    num_tasks = problem.num_tasks
    parts = torch.diag_embed(problem.norms)
    tasks = torch.arange(num_tasks, device=parts.device)[:, None]
    projections = torch.zeros_like(problem.scale)
    for step in range(num_tasks):
        other = orders[..., step : step + 1]
        row = cosines.gather(-2, other.expand(cosines.shape))  # of each task's opponent in this round
        product = (row * parts).sum(-1, keepdim=True)
        conflict = (product < 0) & (other != tasks)
        # Taking the projection off changes a single coefficient: the one on the opponent's unit gradient.
        parts = parts.scatter_add(-1, other, torch.where(conflict, -product, 0.0))
        projections = projections + conflict.sum((-2, -1))
    return parts, projections
