"""FairGrad: the update is a resource, and its gains are shared out alpha-fairly.

Ban and Ji, ICML 2024, arXiv 2402.15638.

``max over a ball of sum_i (g_i . d)^(1 - alpha) / (1 - alpha)`` has its direction along ``d = G'w`` with w > 0 and
``(M w)_i = w_i^(-1/alpha)``. The larger alpha, the more the tasks with the smallest gains count: alpha -> 0 is the
mean, alpha = 1 proportional fairness, that is Nash-MTL, alpha -> infinity max-min fairness. For every alpha
``g_i . d = w_i^(-1/alpha) > 0``. Where norms are orders of magnitude apart and alpha is small, the gains of the
smallest tasks drown in the rounding of the largest; the residual says so.

Unit: w is the paper's, not divided by K. Scaling all gradients by u scales d by ``u^((1 - alpha) / (1 + alpha))``; only
for alpha = 1 does d not depend on the scale of each single task. The authors multiply d by K (``reduction="sum"``) and
clip the shared gradient to norm 1 afterwards, which is left to the trainer.

Departures from the authors' code: the equation is solved exactly by Newton's method, where theirs is a bounded least
squares that fails on small gradients, or (reinforcement learning) twenty steps of gradient descent. Where no w exists
(the gradients are Pareto-stationary, for instance opposed) the answer is that for cosines with a ridge of 1e-10, status
``INACCURATE``. A task whose gradient is zero is left out, with weight 0.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.power_fair import power_fair
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Positive


class FairGrad(GramianCombiner):
    """Alpha-fair combination. With one task ``d = |g|^((1 - alpha) / (1 + alpha)) g / |g|``.

    Args:
        alpha: fairness, positive. 1 is the default of the authors' code, 2 what their scripts use on all data sets.
        reduction: ``"mean"``, which leaves w as it is, or ``"sum"``, which multiplies it by K (the authors').
    """

    name = "fairgrad"
    departures = "Solved exactly, where the authors' least squares fails on small gradients."
    citation = "ban2024fair"

    def __init__(self, alpha: Positive = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.alpha = alpha

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`."""
        problem = normalize(gramian)
        solution = power_fair(problem, self.alpha)
        return problem.weights(
            solution.weights,
            residual=solution.residual,
            status_code=solution.status_code,
        )
