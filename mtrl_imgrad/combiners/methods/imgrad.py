"""IMGrad: conflict-averse descent that reacts to imbalance between tasks, not only to conflict.

Zhou et al., IJCAI 2025, arXiv 2503.08006.

With g0 the mean gradient, ``g_w = G'w``, and mu in [0, 1] the balance of the tasks (the cosine between g0 and
the min-norm point of the gradients):

    w = argmin over the simplex of  (a - mu) g_w . g0 + mu c |g0| |g_w|
    d = g0 + c |g0| g_w / |g_w|,  divided by 1 + c^2

``a`` is 1 in the paper's text (``form="paper"``) and 1.5 in the authors' code (``form="authors"``, the
default, since the published numbers come from code). It follows that w is CAGrad's w for the radius ``kappa
c`` with ``kappa = mu / (a - mu)``: balanced tasks are treated as by MGDA, unbalanced ones get all of the
correction on the task least aligned with the mean.

On Nash-MTL (``base="nash_mtl"``, the paper's appendix) mu weighs the two terms of that method's program instead, see
`mtrl_imgrad.combiners.solvers.nash_imbalance`; c has no part in it, and the update is a unit vector.

Departures from the authors' code (which exists for CAGrad only): exact solvers on a normalized Gramian for both
problems; any number of tasks; no epsilons; for two tasks their code multiplies only a part of the linear term by
``1.5 - mu`` (an operator precedence slip that makes the answer depend on the order of the tasks), we follow the stated
formula unless ``official_k2_quirk`` asks for theirs. The paper writes the norm of the simplified objective squared, its
code does not; we follow the code. Theirs multiplies by K in the trainers: ``reduction="sum"``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.families.pareto_safe import harmless
from mtrl_imgrad.combiners.families.task_sampling import TaskSampler, TasksPerStep
from mtrl_imgrad.combiners.imbalance import direct, plumb_line, smallest_norm
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.methods.cagrad import corrected_mean
from mtrl_imgrad.combiners.solvers.choice import SolverName, solve_dual, solve_min_norm, usable_solver
from mtrl_imgrad.combiners.solvers.nash_imbalance import imbalanced_bargain
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian, normalize
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, NonNegative, Seed

OFFSETS = {"authors": 1.5, "paper": 1.0}
DEFAULT_C = 0.4


class IMGrad(TaskSampler):
    """Imbalance-sensitive combination. With one task ``d = (1 + c) g / (1 + c^2)``, as CAGrad, or as Nash-MTL g / |g|.

    Args:
        c: radius of the ball around the mean gradient, in units of its norm, >= 0. The authors use 0.8 on
            NYUv2 and CityScapes and do not state the value for MT10. None means 0.4, the usual CAGrad
            value, so that the two methods differ by the method and not by the radius; set 0.8 to reproduce
            their vision results. Not for ``base="nash_mtl"``, nor are the arguments marked (C) below.
        form: ``"authors"`` (a = 1.5) or ``"paper"`` (a = 1).
        measure: imbalance measure: ``"pm"`` (the paper's choice), ``"lm"`` or ``"dc"``; see
            `mtrl_imgrad.combiners.imbalance`. The last two save the min-norm solve.
        base: the method that the imbalance is injected into: ``"cagrad"`` or ``"nash_mtl"``.
        rescale: (C) divide by ``1 + c^2``, as the authors do; False leaves it.
        pareto_safe: (C) where the combination is uphill for a task, take the nearest one that is not; see
            `mtrl_imgrad.combiners.families.pareto_safe`. Off, as in the paper. A larger radius alone would not do: on
            the same sphere IMGrad's update can harm a task where CAGrad's does not.
        tasks_per_step: (C) look at this many groups of tasks a step, see
            `mtrl_imgrad.combiners.families.task_sampling`.
        seed: of the generator that draws the tasks; None (default): the run's, see `Combiner.set_random_seed`.
        update_every: solve on every n-th step only, see `GramianCombiner`. The paper tries 2, 4, 8 and 16.
        official_k2_quirk: (C) for two tasks and ``form="authors"``, the linear term as the authors' CityScapes code
            has it, to reproduce their numbers.
        solver: (C) ``"exact"``, or ``"cvxpy"`` for the published program with a general conic solver (slow, needs
            cvxpy).
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed, or two contradict each other.
        MissingDependencyError: if ``solver="cvxpy"`` and cvxpy is not installed.
    """

    name = "imgrad"
    departures = "Exact solvers; any number of tasks; the formula, not the precedence slip of their two-task code."
    citation = "zhou2025injecting"

    def __init__(
        self,
        c: NonNegative | None = None,
        *,
        form: Literal["authors", "paper"] = "authors",
        measure: Literal["pm", "lm", "dc"] = "pm",
        base: Literal["cagrad", "nash_mtl"] = "cagrad",
        rescale: bool = True,
        pareto_safe: bool = False,
        tasks_per_step: TasksPerStep | None = None,
        seed: Seed | None = None,
        update_every: Count = 1,
        official_k2_quirk: bool = False,
        solver: SolverName = "exact",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(update_every=update_every, reduction=reduction)
        self.rescale = rescale
        self.pareto_safe = pareto_safe
        self.official_k2_quirk = official_k2_quirk
        only_cagrad = {
            "c": c is not None,
            "rescale": not rescale,
            "pareto_safe": pareto_safe,
            "tasks_per_step": tasks_per_step is not None,
            "official_k2_quirk": official_k2_quirk,
            "solver": solver != "exact",
        }
        if base != "cagrad" and any(only_cagrad.values()):
            given = ", ".join(name for name, is_given in only_cagrad.items() if is_given)
            raise ArgumentError(f"base={base!r} takes no {given}: of base='cagrad' only")
        if official_k2_quirk and form != "authors":
            raise ArgumentError("official_k2_quirk must go with form='authors': the paper's form has none")
        if pareto_safe and tasks_per_step is not None:
            raise ArgumentError("pareto_safe cannot go with tasks_per_step: the tasks of a group are not seen singly")
        self.c = (DEFAULT_C if c is None else c) if base == "cagrad" else None
        self.form = form
        self.measure = measure
        self.base = base
        self.tasks_per_step = tasks_per_step
        self.solver = usable_solver(solver)
        self._sample_tasks(tasks_per_step, seed)

    def solve_rows(self, gramian: Tensor, mean: Tensor | None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``mu`` [...]; ``cos_theta`` [...], the same where the measure is the plumb line. On CAGrad also
        ``kappa`` [...] and ``simplex_weights`` [..., K], w; on Nash-MTL ``surplus`` [..., K], how much more than its
        share each task gains.
        """
        problem = normalize(gramian, mean)
        return self._on_cagrad(problem) if self.c is not None else self._on_nash(problem)

    def _on_cagrad(self, problem: NormalizedGramian) -> Weights:
        assert self.c is not None, "set for this base"
        mu, residual, status_code, extras = self._imbalance(problem)
        rest = OFFSETS[self.form] - mu
        radius = mu * self.c * problem.mean_norm
        linear = rest[..., None] * problem.linear
        if self.official_k2_quirk and problem.num_tasks == 2:
            linear = _slipped(problem, mu)
        solution = solve_dual(problem, linear, radius, self.solver)
        values = corrected_mean(problem, solution, radius, self.c)
        weights = problem.weights(
            values / (1 + self.c * self.c) if self.rescale else values,
            residual=torch.maximum(residual, solution.residual),
            status_code=torch.maximum(status_code, solution.status_code),
            extras={"mu": mu, "kappa": mu / rest, "simplex_weights": solution.weights, **extras},
        )
        # With P the projection and c_min |g0| = |P(g0) - g0|, before rescaling the result stays near the mean:
        # |P(d) - g0| <= |P(d) - P(g0)| + |P(g0) - g0| <= |d - g0| + c_min |g0| <= (c + c_min) |g0|, since
        # projections onto convex sets bring no two points further apart. On a cone they commute with rescaling.
        return harmless(problem, weights) if self.pareto_safe else weights

    def _on_nash(self, problem: NormalizedGramian) -> Weights:
        mu, residual, status_code, extras = self._imbalance(problem)
        bargain = imbalanced_bargain(problem, mu, OFFSETS[self.form])
        return problem.weights(
            bargain.weights,
            residual=torch.maximum(residual, bargain.residual),
            status_code=torch.maximum(status_code, bargain.status_code),
            extras={"mu": mu, "surplus": bargain.surplus, **extras},
        )

    def _imbalance(self, problem: NormalizedGramian) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """mu, with the residual and status of the problem solved to find it, and extras."""
        if self.measure == "pm":
            shortest = solve_min_norm(problem, self.solver)
            mu = plumb_line(problem, shortest)
            return mu, shortest.residual, shortest.status_code, {"cos_theta": mu}
        mu = smallest_norm(problem) if self.measure == "lm" else direct(problem)
        residual = torch.zeros_like(mu)
        return mu, residual, residual.long(), {}


def _slipped(problem: NormalizedGramian, mu: Tensor) -> Tensor:
    """The linear term ``[..., 2]`` of the authors' two-task code, up to a constant.

    Meant is ``(1.5 - mu) (x |g1 - g2|^2 / 2 + x (g1 - g2) . g2 + ...)``, x the first weight; the factor stands before
    the first summand only.
    """
    M = problem.values
    distance = M[..., 0, 0] + M[..., 1, 1] - 2 * M[..., 0, 1]
    first = (OFFSETS["authors"] - mu) * distance / 2 + M[..., 0, 1] - M[..., 1, 1]
    return torch.stack([first, torch.zeros_like(first)], -1)
