"""Nash-MTL: the update that tasks would agree on in a bargaining game, each with its log gain as utility.

Navon et al., ICML 2022, arXiv 2202.01017.

``max sum_i log(g_i . d)`` over a ball has its direction along ``d = G'a`` with a > 0 and ``(M a)_i = 1 / a_i``. This a
is the minimiser of ``a'Ma / 2 - sum_i log a_i``. It follows that ``g_i . d = 1 / a_i > 0`` for every task, that
``|d| = sqrt(K)`` whatever the gradients, and that scaling a task's gradient does not change d.

Unit: a is the paper's, not divided by K. With ``max_norm=1`` the update is a unit vector: its length says nothing of
the gradients', so the learning rate alone sets the step. ``reduction="sum"`` multiplies it by K like any other.

Departures from the authors' code: the equation is solved exactly by Newton's method, where theirs takes up to twenty
rounds of a linearised cone program and keeps the previous weights, silently, where its solver fails; so no
previous weights are kept. Where no a exists (the gradients are Pareto-stationary, for instance opposed) the answer is
that for cosines with a ridge of 1e-10, status ``INACCURATE``. Theirs clips the gradient after the backward pass; here
the clipping is a factor of the weights, so ``heads="weighted"`` multiplies a head's gradient by the clipped weight,
where theirs multiplies it by a. A task whose gradient is zero is left out, with weight 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.choice import SolverName, solve_bargain, usable_solver
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.validation import Count, Positive


class NashMTL(GramianCombiner):
    """Nash bargaining solution. With one task ``d = g / |g|``.

    Args:
        max_norm: the update is shortened to this norm, the authors' value being 1; None leaves its length at sqrt(K).
        solver: ``"exact"``, or ``"cvxpy"`` for the program with a general conic solver (slow, needs cvxpy; NaN
            where that finds no answer).
        update_every: solve on every n-th step only, see `GramianCombiner`. The authors' code has the option.
        reduction: ``"mean"``, or ``"sum"``, which multiplies the (shortened) update by K.

    Raises:
        MissingDependencyError: if ``solver="cvxpy"`` and cvxpy is not installed.
    """

    name = "nash_mtl"
    departures = "Solved exactly by Newton's method; no previous weights are kept where there is no answer."
    citation = "navon2022multi"

    def __init__(
        self,
        max_norm: Positive | None = 1.0,
        *,
        solver: SolverName = "exact",
        update_every: Count = 1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.max_norm = max_norm
        self.solver = usable_solver(solver)

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``bargaining_weights`` [..., K], a before clipping, with which the authors weight the heads.
        """
        problem = normalize(gramian)
        bargain = solve_bargain(problem, self.solver)
        values = bargain.weights
        if self.max_norm is not None:
            longer = bargain.length > self.max_norm
            values = values * torch.where(longer, self.max_norm / bargain.length, 1.0)[..., None]
        return problem.weights(
            values,
            residual=bargain.residual,
            status_code=bargain.status_code,
            extras={"bargaining_weights": bargain.weights},
        )
