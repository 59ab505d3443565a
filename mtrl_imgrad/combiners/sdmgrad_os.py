"""SDMGrad-OS, objective sampling: SDMGrad on a few tasks, drawn anew for each step.

Xiao, Ban, Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms", NeurIPS 2023,
arXiv 2305.18409.

Each of K tasks is drawn with probability n / K, and the whole draw is repeated if it is empty. SDMGrad is applied to
the tasks drawn alone: g0 is their mean, and the others have weight 0. `Combiner.backward` then takes about n backwards
in place of K.

Departures from the authors' code: exact, where theirs takes twenty projected gradient steps from equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import Combination, GramianCombiner, Reduction, TaskIds, Weights
from mtrl_imgrad.combiners.checks import check_number
from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_of_blocks
from mtrl_imgrad.combiners.normalised import normalise
from mtrl_imgrad.combiners.random_order import check_seed
from mtrl_imgrad.combiners.sdmgrad import SDMGrad, direction_oriented, drawn_to_mean

__all__ = ["SDMGradOS"]


class SDMGradOS(GramianCombiner):
    """SDMGrad on a random sample of the tasks. With one task ``d = g``.

    Tasks are drawn on the host, from the combiner's own generator; a batch of Gramians shares one draw. Where per-task
    gradients come all at once, as in ``MTSAC``, sampling saves nothing.

    Args:
        num_sampled: tasks drawn in a step on average, n > 0; the authors take 4 on MT10 and 8 on MT50. All are drawn
            where there are no more than that.
        lam: weight of the mean gradient, >= 0; 0.6 is the authors' on MT10 and MT50.
        seed: of the generator.
        reduction: ``"mean"``, or ``"sum"``, which multiplies by K.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "sdmgrad_os"
    keeps = ("generator",)
    departures = "Exact on the tasks drawn."
    paper = SDMGrad.paper
    bibtex = SDMGrad.bibtex

    def __init__(
        self, num_sampled: float = 4, lam: float = 0.6, *, seed: int = 0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.num_sampled = check_number("num_sampled", num_sampled, 0, closed=False)
        self.lam = check_number("lam", lam, 0)
        self.seed = check_seed(seed)
        self._generator = self._keep("generator", torch.Generator().manual_seed(self.seed))

    def draw_groups(self, num_tasks: int) -> Tensor:
        """One row a task drawn; see `Combiner.draw_groups`."""
        return torch.eye(num_tasks, dtype=torch.float64)[self._draw(num_tasks)]

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """See `Combiner.combine_groups`."""
        blocks = list(jacobian)
        gramian = gramian_of_blocks(blocks)
        sampled = self._of_sample(gramian, groups.argmax(-1).tolist(), groups.shape[-1])
        found = self._reduced(sampled)
        values = found.values @ groups.T.to(gramian.device, non_blocking=True)
        return Combination(
            gradient=combine_blocks(values, blocks),
            weights=found.values,
            residual=found.residual,
            status_code=found.status_code,
            extras=found.extras,
        )

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients, 0 for tasks that were not drawn; see `GramianCombiner.weights`.

        Extras: ``simplex_weights`` [..., K], w.
        """
        problem = normalise(gramian)
        drawn = self._draw(problem.num_tasks)
        found = self._of_sample(gramian[..., drawn, :][..., drawn], drawn, problem.num_tasks)
        return problem.weights(
            found.values,
            base=found.values,
            residual=found.residual,
            status_code=found.status_code,
            extras=found.extras,
        )

    def _draw(self, num_tasks: int) -> list[int]:
        probability = self.num_sampled / num_tasks
        while True:
            numbers = torch.rand(num_tasks, generator=self._generator, dtype=torch.float64)
            drawn = (numbers < probability).nonzero()[:, 0].tolist()
            if drawn:
                return drawn

    def _of_sample(self, gramian: Tensor, drawn: list[int], num_tasks: int) -> Weights:
        """SDMGrad's weights on the tasks drawn, spread over all K."""
        problem = normalise(gramian)
        found = direction_oriented(problem, self.lam)
        spread = torch.eye(num_tasks, dtype=torch.float64)[drawn].to(gramian.device, non_blocking=True)
        solved = problem.weights(
            drawn_to_mean(found.weights, self.lam),
            base=1 / problem.num_tasks,
            residual=found.residual,
            status_code=found.status_code,
        )
        return Weights(
            solved.values @ spread,
            solved.residual,
            solved.status_code,
            {"simplex_weights": problem.nan_unless_finite(found.weights @ spread)},
        )
