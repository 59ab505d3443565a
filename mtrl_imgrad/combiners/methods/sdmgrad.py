"""SDMGrad: the min-norm point, drawn towards the mean gradient.

Xiao et al., NeurIPS 2023, arXiv 2305.18409.

``max over d of min_i g_i . d - |d|^2 / 2 + lam g0 . d``, g0 the mean gradient. Its solution is ``d = g_w + lam g0``
with w the minimiser of ``|g_w + lam g0|^2`` over the simplex; it is divided by ``1 + lam``. lam = 0 is MGDA, a large
lam the mean.

As the weights sum to 1, ``g_w + lam g0 = sum_i w_i (g_i + lam g0)``: w is the min-norm point of the shifted gradients,
whose Gramian ``M_ij + lam (b_i + b_j) + lam^2 |g0|^2`` with ``b_i = g_i . g0`` follows from M. So the exact solver of
MGDA solves it, and proves its answer.

With stochastic gradients this w is biased, because noise does not cancel in ``M = G G'``. The paper estimates M by
``A = G_a G_b'`` from two independent halves of the batch and moves w by projected gradient steps on it, from where the
last step left it: ``halves=True``.

Departures from the authors' code: exact on one batch, where theirs takes twenty projected gradient steps there, too,
which end 13 % (median) to 85 % of the update's length away from it on their golden inputs (docs/authors.md); with
``halves`` the update is taken along both halves, where the paper draws a third batch for it; no factor K
(``reduction="sum"`` is theirs).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, min_norm_point
from mtrl_imgrad.combiners.state.simplex_table import SimplexTable, project_simplex
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, NonNegative

_RATE, _MOMENTUM, _ITERATIONS = 10.0, 0.5, 20
"""Of the projected gradient steps of w in the authors' code for one batch; LibMTL's port for halves has the rate 5."""
_SMALLEST_SQUARE = 1e-8
"""Added to the squared unit of A, as in LibMTL's port: with little data all its diagonal may be negative."""


class SDMGrad(GramianCombiner):
    """Min-norm point of the task gradients, each shifted by ``lam`` times their mean. With one task ``d = g``.

    With ``halves=True`` every task has two rows, those of two independent halves of its batch, in the order
    ``[a_0, b_0, a_1, b_1, ...]``; the two losses of a task are shares that add up to it (half the mean loss of each):

        combiner = SDMGrad(halves=True)
        losses = [0.5 * mean_loss(task, half) for task in tasks for half in split(batch[task])]
        combiner.backward(losses, trunk.parameters(), heads.parameters())

    Rows 2k and 2k + 1 then are those of task k; where tasks are absent, ``tasks`` holds these numbers. Weights are kept
    by task, and one Gramian is taken at a time. ``MTSAC``, which has one row a task, refuses it.

    Args:
        lam: weight of the mean gradient, >= 0. The authors' values: 0.3 on NYUv2 and CityScapes, 0.6 on MT10 and MT50.
        halves: see above.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "sdmgrad"
    departures = "Exact on one batch; with halves the update is taken along both, without a third batch."
    citation = "xiao2023direction"

    def __init__(
        self, lam: NonNegative = 0.3, *, halves: bool = False, update_every: Count = 1, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.lam = lam
        self.halves = halves
        if self.halves:
            self.rows_per_task = 2
            self._weights = SimplexTable()

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients of sum 1; see `GramianCombiner.weights`. With ``halves`` ``[2 K]``.

        Extras: ``simplex_weights`` [..., K], w.
        """
        problem = normalize(gramian)
        if self.halves:
            return self._of_halves(problem, tasks)
        solution = direction_oriented(problem, self.lam)
        return problem.weights(
            drawn_to_mean(solution.weights, self.lam),
            residual=solution.residual,
            status_code=solution.status_code,
            extras={"simplex_weights": solution.weights},
        )

    def _of_halves(self, problem: NormalizedGramian, rows: TaskIds | None) -> Weights:
        tasks = _tasks_of_pairs(problem, rows)
        cross = problem.values[0::2, 1::2]
        unit = cross.diagonal().clamp_min(0).sqrt().mean()
        weights = self._weights.shares(cross[0], tasks)
        weights = _follow(cross / (unit * unit + _SMALLEST_SQUARE), weights, self.lam)
        self._weights.write_shares(weights, tasks, problem.finite & ~problem.zero)
        return problem.weights(
            drawn_to_mean(weights, self.lam).repeat_interleave(2),
            base=1 / len(weights),
            extras={"simplex_weights": weights},
        )

    def _reduced(self, weights: Weights) -> Weights:
        reduced = super()._reduced(weights)
        if not self.halves or self.reduction == "mean":
            return reduced
        return Weights(reduced.values / 2, reduced.residual, reduced.status_code, reduced.extras)


def direction_oriented(problem: NormalizedGramian, lam: float) -> SimplexSolution:
    """The minimiser of ``|g_w + lam g0|`` over the simplex; 0 for a zero gradient.

    The residual is that of the min-norm point of the shifted gradients, see `min_norm_point`.
    """
    keep, share = 1 / (1 + lam), lam / (1 + lam)
    linear = problem.linear
    shifted = keep * keep * problem.values + keep * share * (linear[..., :, None] + linear[..., None, :])
    shifted = shifted + share * share * (problem.mean_norm**2)[..., None, None]
    nonzero = problem.nonzero
    shifted_problem = normalize(torch.where(nonzero[..., :, None] & nonzero[..., None, :], shifted, 0.0))
    solution = min_norm_point(shifted_problem)
    # A task whose shifted gradient vanishes is the answer, where the solver would leave it out.
    vanishing = nonzero & ~shifted_problem.nonzero
    first = vanishing.to(torch.float64) * (vanishing.cumsum(-1) == 1)  # if there are several, all weight on one
    some = vanishing.any(-1)
    return SimplexSolution(
        weights=torch.where(some[..., None], first, solution.weights),
        multipliers=solution.multipliers,
        residual=torch.where(some, 0.0, solution.residual),
        status_code=torch.where(some, int(Status.SOLVED), solution.status_code),
    )


def drawn_to_mean(weights: Tensor, lam: float) -> Tensor:
    """``(w + lam / K) / (1 + lam)``."""
    return (weights + lam / weights.shape[-1]) / (1 + lam)


def _follow(cross: Tensor, weights: Tensor, lam: float) -> Tensor:
    """Projected gradient steps from ``weights`` [K] with momentum, on ``A (w + lam / K)``."""
    velocity = torch.zeros_like(weights)
    for _ in range(_ITERATIONS):
        velocity = _MOMENTUM * velocity + cross @ (weights + lam / len(weights))
        weights = project_simplex(weights - _RATE * velocity)
    return weights


def _tasks_of_pairs(problem: NormalizedGramian, rows: TaskIds | None) -> list[int] | None:
    """The task ids of rows that come in pairs."""
    if problem.values.ndim != 2 or problem.num_tasks % 2:
        raise ArgumentError(
            f"gramian must be [2 K, 2 K] with halves=True, two rows a task, got {tuple(problem.values.shape)}"
        )
    if rows is None:
        return None
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    if not all(a % 2 == 0 and b == a + 1 for a, b in pairs):
        raise ArgumentError(f"tasks must hold 2 k and 2 k + 1 for each task k with halves=True, got {list(rows)}")
    return [a // 2 for a, _ in pairs]
