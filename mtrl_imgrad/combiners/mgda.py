"""MGDA, the multiple-gradient descent algorithm: the shortest convex combination of the task gradients.

Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Acad. Sci. 2012;
Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, arXiv 1810.04650.

``w = argmin over the simplex of |G'w|^2``, ``d = G'w``. At the optimum ``g_i . d >= |d|^2`` for every task, so d
improves all tasks or is zero (a Pareto-stationary point).

Departures from the authors' code: the min-norm point is exact, where theirs is iterative and stops early; a
task whose gradient is zero is left out, where the letter of the method would return the zero update.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mtrl_imgrad.combiners.base import GramianCombiner, Reduction, TaskIds, Weights
from mtrl_imgrad.combiners.normalised import normalise
from mtrl_imgrad.combiners.solvers import min_norm_point
from mtrl_imgrad.errors import ArgumentError

__all__ = ["MGDA"]


class MGDA(GramianCombiner):
    """Min-norm point of the task gradients.

    Args:
        normalisation: how gradients are scaled before the min-norm point is sought; ``"none"``.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "mgda"
    paper = (
        "Ozan Sener and Vladlen Koltun. Multi-Task Learning as Multi-Objective Optimization. "
        "NeurIPS 2018. arXiv:1810.04650"
    )
    bibtex = """@inproceedings{sener2018multi,
  title = {Multi-Task Learning as Multi-Objective Optimization},
  author = {Sener, Ozan and Koltun, Vladlen},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2018},
  eprint = {1810.04650},
  archivePrefix = {arXiv}
}"""

    def __init__(self, normalisation: Literal["none"] = "none", *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if normalisation != "none":
            raise ArgumentError(f"normalisation must be 'none', got {normalisation!r}")
        self.normalisation = normalisation

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights on the simplex; see `GramianCombiner.weights`."""
        problem = normalise(gramian)
        found = min_norm_point(problem)
        return problem.weights(
            found.weights,
            base=1 / problem.num_tasks,
            residual=found.residual,
            status_code=found.status_code,
        )
