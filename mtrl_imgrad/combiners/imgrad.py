"""IMGrad: conflict-averse descent that reacts to imbalance between tasks, not only to conflict.

Zhou, Liu, Zhao, Gong, "Injecting Imbalance Sensitivity for Multi-Task Learning", IJCAI 2025, arXiv
2503.08006.

With g0 the mean gradient, ``g_w = G'w``, and mu in [0, 1] the balance of the tasks (the cosine between g0 and
the min-norm point of the gradients):

    w = argmin over the simplex of  (a - mu) g_w . g0 + mu c |g0| |g_w|
    d = g0 + c |g0| g_w / |g_w|,  divided by 1 + c^2

``a`` is 1 in the paper's text (``form="paper"``) and 1.5 in the authors' code (``form="authors"``, the
default, since the published numbers come from code). It follows that w is CAGrad's w for the radius ``kappa
c`` with ``kappa = mu / (a - mu)``: balanced tasks are treated as by MGDA, unbalanced ones get all of the
correction on the task least aligned with the mean.

Departures from the authors' code: exact solvers on a normalised Gramian for both problems; any number of
tasks; no epsilons; for two tasks their code multiplies only a part of the linear term by ``1.5 - mu`` (an
operator precedence slip that makes the answer depend on the order of the tasks), we follow the stated
formula. The paper writes the norm of the simplified objective squared, its code does not; we follow the code.
Theirs multiplies by K in the trainers: ``reduction="sum"``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import GramianCombiner, Reduction, TaskIds, Weights
from mtrl_imgrad.combiners.cagrad import check_radius, corrected_mean
from mtrl_imgrad.combiners.imbalance import MEASURES, direct, plumb_line, smallest_norm
from mtrl_imgrad.combiners.normalised import NormalisedGramian, normalise
from mtrl_imgrad.combiners.pareto_safe import harmless
from mtrl_imgrad.combiners.solver_choice import (
    SolverName,
    check_choice,
    check_solver,
    solve_dual,
    solve_min_norm,
)

__all__ = ["IMGrad"]

OFFSETS = {"authors": 1.5, "paper": 1.0}
BASES = ("cagrad",)


class IMGrad(GramianCombiner):
    """Imbalance-sensitive combination. With one task ``d = (1 + c) g / (1 + c^2)``, as CAGrad.

    Args:
        c: radius of the ball around the mean gradient, in units of its norm, >= 0. The authors use 0.8 on
            NYUv2 and CityScapes and do not state the value for MT10. The default 0.4 is the usual CAGrad
            value, so that the two methods differ by the method and not by the radius; set 0.8 to reproduce
            their vision results.
        form: ``"authors"`` (a = 1.5) or ``"paper"`` (a = 1).
        measure: imbalance measure: ``"pm"`` (the paper's choice), ``"lm"`` or ``"dc"``; see
            `mtrl_imgrad.combiners.imbalance`. The last two save the min-norm solve.
        base: the method that the imbalance is injected into; ``"cagrad"``.
        rescale: divide by ``1 + c^2``, as the authors do.
        pareto_safe: where the combination is uphill for a task, take the nearest one that is not; see
            `mtrl_imgrad.combiners.pareto_safe`. Off, as in the paper. A larger radius alone would not do: on the same
            sphere IMGrad's update can harm a task where CAGrad's does not.
        solver: ``"exact"``, or ``"cvxpy"`` for the published program with a general conic solver (slow, needs
            cvxpy).
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
        MissingDependencyError: if ``solver="cvxpy"`` and cvxpy is not installed.
    """

    name = "imgrad"
    paper = (
        "Zhipeng Zhou, Liu Liu, Peilin Zhao and Wei Gong. Injecting Imbalance Sensitivity for Multi-Task "
        "Learning. IJCAI 2025. arXiv:2503.08006"
    )
    bibtex = """@inproceedings{zhou2025injecting,
  title = {Injecting Imbalance Sensitivity for Multi-Task Learning},
  author = {Zhou, Zhipeng and Liu, Liu and Zhao, Peilin and Gong, Wei},
  booktitle = {Proceedings of the International Joint Conference on Artificial Intelligence},
  year = {2025},
  eprint = {2503.08006},
  archivePrefix = {arXiv}
}"""

    def __init__(
        self,
        c: float = 0.4,
        *,
        form: Literal["authors", "paper"] = "authors",
        measure: Literal["pm", "lm", "dc"] = "pm",
        base: Literal["cagrad"] = "cagrad",
        rescale: bool = True,
        pareto_safe: bool = False,
        solver: SolverName = "exact",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        check_choice("form", form, tuple(OFFSETS))
        check_choice("measure", measure, MEASURES)
        check_choice("base", base, BASES)
        self.c = check_radius(c)
        self.form = form
        self.measure = measure
        self.base = base
        self.rescale = bool(rescale)
        self.pareto_safe = bool(pareto_safe)
        self.solver = check_solver(solver)

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` coefficients; see `GramianCombiner.weights`.

        Extras: ``mu`` [...]; ``cos_theta`` [...], the same where the measure is the plumb line;
        ``kappa`` [...]; ``simplex_weights`` [..., K], w.
        """
        problem = normalise(gramian)
        mu, residual, status_code, extras = self._imbalance(problem)
        rest = OFFSETS[self.form] - mu
        radius = mu * self.c * problem.mean_norm
        found = solve_dual(problem, rest[..., None] * problem.linear, radius, self.solver)
        weights = problem.weights(
            corrected_mean(problem, found, radius, self.c, rescale=self.rescale),
            base=1 / problem.num_tasks,
            residual=torch.maximum(residual, found.residual),
            status_code=torch.maximum(status_code, found.status_code),
            extras={"mu": mu, "kappa": mu / rest, "simplex_weights": found.weights, **extras},
        )
        # With P the projection and c_min |g0| = |P(g0) - g0|, before rescaling the result stays near the mean:
        # |P(d) - g0| <= |P(d) - P(g0)| + |P(g0) - g0| <= |d - g0| + c_min |g0| <= (c + c_min) |g0|, since
        # projections onto convex sets bring no two points further apart. On a cone they commute with rescaling.
        return harmless(problem, weights) if self.pareto_safe else weights

    def _imbalance(self, problem: NormalisedGramian) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """mu, with the residual and status of the problem solved to find it, and extras."""
        if self.measure == "pm":
            shortest = solve_min_norm(problem, self.solver)
            mu = plumb_line(problem, shortest)
            return mu, shortest.residual, shortest.status_code, {"cos_theta": mu}
        mu = smallest_norm(problem) if self.measure == "lm" else direct(problem)
        residual = torch.zeros_like(mu)
        return mu, residual, residual.long(), {}
