"""CoTBal, comprehensive task balancing: fixed weights from validation scores of short training runs.

Dai et al., 2024, arXiv 2403.04343 (later versions: "Adaptive Task Balancing for Visual Instruction Tuning via
Inter-Task Contribution and Intra-Task Difficulty", WWW 2026).

Let ``V_j(A)`` be task j's validation score (higher is better) after training on A, "mini" a small mix of the data of
every task, and "i + mini" that mix with all data of task i. Then

* ``C_ij = (V_j(i + mini) - V_j(mini)) / (V_j(j + mini) - V_j(mini))`` is what task i contributes to task j;
* ``out_i = sum_(j != i) C_ij / (K - 1)`` what it gives, ``in_i = sum_(j != i) C_ji / (K - 1)`` what it receives;
* ``D_i = 1 - V_i(mini) / V_i(i + mini)`` is its difficulty,

and the weights are ``K (a softmax(out / T) + b softmax(-in / T) + c softmax(D / T))`` with the shares (a, b, c) =
(1/4, 1/4, 1/2). They sum to K for the sum of the losses; the combiner's are those over K, scaled to sum one over the
tasks of a step, as the paper divides by the weights of what is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.loss import LossCombiner, weights_from
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.tables import TaskIds, values_of_tasks
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Finite, NonNegative, Positive, checked


@checked
def cotbal_weights(
    mini: Sequence[Finite],
    single: Sequence[Sequence[Finite]],
    *,
    temperature: Positive = 1.0,
    shares: Sequence[NonNegative] = (0.25, 0.25, 0.5),
    smallest_gain: Positive = 0.01,
) -> list[float]:
    """The K weights, of sum K.

    Args:
        mini: ``V_j(mini)`` for every task j.
        single: a row for every task i: ``V_j(i + mini)`` for every task j.
        temperature: T; 1 for M3IT, 0.5 for the paper's other two benchmarks.
        shares: of what a task gives, of what it receives, and of its difficulty; they sum to one.
        smallest_gain: what a task gains from its own data counts as at least this part of ``V_j(j + mini)``: where
            own data hardly help, the ratio C would have no meaning.

    Raises:
        ArgumentError: if the tables are not K numbers and K x K, a task's score with its own data is not positive, or
            the shares are not three of sum 1.
    """
    few, full = _tables(mini, single)
    if len(shares) != 3 or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise ArgumentError(f"shares must be three numbers of sum 1, got {shares!r}")
    own = full.diagonal()
    gain = torch.maximum(own - few, smallest_gain * own)
    contribution = (full - few) / gain
    contribution.fill_diagonal_(0.0)
    others = max(len(few) - 1, 1)
    gives, receives = contribution.sum(1) / others, contribution.sum(0) / others
    return balance_scores(gives, receives, 1 - few / own, temperature=temperature, shares=shares).tolist()


def balance_scores(
    gives: Tensor, receives: Tensor, difficulty: Tensor, *, temperature: float, shares: Sequence[float]
) -> Tensor:
    """``[K]`` weights of sum K from what each task gives and receives ``[K]`` and its difficulty ``[K]``."""
    scores = torch.stack([gives, -receives, difficulty])
    return len(gives) * (scores.new_tensor(shares) @ (scores / temperature).softmax(1))


class CoTBal(LossCombiner):
    """Weighted mean of the task gradients, with weights from validation scores. With one task ``d = g``.

    Args:
        mini: see `cotbal_weights`, as are the others.
        single: a row a task.
        temperature: of the softmaxes.
        shares: of the three softmaxes.
        smallest_gain: relative to a task's score with its own data.
        reduction: ``"mean"`` or ``"sum"``.
    """

    name = "cotbal"
    per_task = ("mini", "single")
    departures = "Weighs mean losses of tasks, where the authors weigh tokens; own gains are bounded from below."
    citation = "dai2024cotbal"

    def __init__(
        self,
        mini: Sequence[Finite],
        single: Sequence[Sequence[Finite]],
        *,
        temperature: Positive = 1.0,
        shares: Sequence[NonNegative] = (0.25, 0.25, 0.5),
        smallest_gain: Positive = 0.01,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.task_weights = cotbal_weights(
            mini, single, temperature=temperature, shares=shares, smallest_gain=smallest_gain
        )
        self.mini = tuple(map(float, mini))
        self.single = tuple(tuple(map(float, row)) for row in single)
        self.temperature = temperature
        self.shares = tuple(map(float, shares))
        self.smallest_gain = smallest_gain

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights of sum one; of the losses only their number matters, and that they are finite."""
        chosen = values_of_tasks("mini", self.task_weights, losses.shape[-1], tasks)
        ones = torch.ones_like(losses[..., 0], dtype=torch.float64)
        return weights_from(torch.stack([ones * (weight / sum(chosen)) for weight in chosen], -1), losses)


def _tables(mini: Sequence[float], single: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    widths = [len(row) for row in single]
    if not mini or widths != [len(mini)] * len(mini):
        raise ArgumentError(f"mini must hold K scores and single K rows of K, got {len(mini)} and rows of {widths}")
    for task, row in enumerate(single):
        if row[task] <= 0:
            raise ArgumentError(
                f"single[{task}][{task}] must be > 0: the difficulty is relative to it, got {row[task]}"
            )
    return torch.tensor(mini, dtype=torch.float64, device="cpu"), torch.tensor(
        single, dtype=torch.float64, device="cpu"
    )
