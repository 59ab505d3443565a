"""SDMGrad-OS, objective sampling: SDMGrad on a few tasks, redrawn for each step.

Xiao et al., NeurIPS 2023, arXiv 2305.18409.

Each of K tasks is drawn with probability n / K, and the whole draw is repeated if it is empty. SDMGrad is applied to
the tasks drawn alone: g0 is their mean, and the others have weight 0. `Combiner.backward` then takes about n backwards
in place of K.

Departures from the authors' code: exact, where theirs takes twenty projected gradient steps from equal weights. This is
the form of their first repository. Its successor keeps rows of zeros for tasks not drawn, one w over all K from step to
step, and a factor K / n; the exact w would then lie on a row of zeros wherever the tasks drawn agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_of_blocks
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.methods.sdmgrad import direction_oriented, drawn_to_mean
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import NonNegative, Positive, Seed


class SDMGradOS(GramianCombiner):
    """SDMGrad on a random sample of the tasks. With one task ``d = g``.

    Tasks are drawn on the host, from the combiner's own generator; a batch of Gramians shares one draw. Where per-task
    gradients come all at once, as in ``MTSAC``, sampling saves nothing.

    Args:
        num_sampled: tasks drawn in a step on average, n > 0; the authors take 4 on MT10 and 8 on MT50. All are drawn
            where there are no more than that.
        lam: weight of the mean gradient, >= 0; 0.6 is the authors' on MT10 and MT50.
        seed: of the generator; None (default): the run's, see `Combiner.set_random_seed`.
        reduction: ``"mean"``, or ``"sum"``, which multiplies by K.
    """

    name = "sdmgrad_os"
    citation = "xiao2023direction"
    by_columns = True
    departures = "Exact; the form of the authors' first repository, without the successor's rows of zeros and K / n."

    def __init__(
        self,
        num_sampled: Positive = 4,
        lam: NonNegative = 0.6,
        *,
        seed: Seed | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.num_sampled = num_sampled
        self.lam = lam
        self._generator = self._seed_generator(seed)

    def draw_groups(self, num_tasks: int) -> Tensor:
        """One row a task drawn; see `Combiner.draw_groups`."""
        while True:
            numbers = torch.rand(num_tasks, generator=self._generator, dtype=torch.float64, device="cpu")
            drawn = numbers < self.num_sampled / num_tasks
            if bool(drawn.any()):
                return torch.eye(num_tasks, dtype=torch.float64, device="cpu")[drawn]

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """See `Combiner.combine_groups`."""
        groups = groups.to(jacobian[0].device, non_blocking=True)
        weights = self._reduced(self._of_sample(gramian_of_blocks(jacobian), groups))
        return Combination(
            gradient=combine_blocks(weights.values @ groups.T, jacobian),
            weights=weights.values,
            residual=weights.residual,
            status_code=weights.status_code,
            extras=weights.extras,
        )

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients, 0 for tasks that were not drawn; see `GramianCombiner.weights`.

        Extras: ``simplex_weights`` [..., K], w.
        """
        problem = normalize(gramian)
        groups = self.draw_groups(problem.num_tasks).to(gramian.device, non_blocking=True)
        # Rows are picked by a product: indices would have to wait for the device. So what is not finite shows in all.
        return self._of_sample(groups @ gramian.double() @ groups.T, groups)

    def _of_sample(self, gramian: Tensor, groups: Tensor) -> Weights:
        """SDMGrad's weights on the tasks drawn, spread over all K."""
        problem = normalize(gramian)
        solution = direction_oriented(problem, self.lam)
        sampled = problem.weights(
            drawn_to_mean(solution.weights, self.lam),
            residual=solution.residual,
            status_code=solution.status_code,
            extras={"simplex_weights": solution.weights},
        )
        return Weights(
            values=sampled.values @ groups,
            residual=sampled.residual,
            status_code=sampled.status_code,
            extras={name: extra @ groups for name, extra in sampled.extras.items()},
        )
