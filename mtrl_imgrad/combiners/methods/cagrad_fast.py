"""CAGrad-Fast: CAGrad on a few groups of tasks a step.

Liu et al., NeurIPS 2021, arXiv 2110.14048, the variant that its authors use for MT10 and MT50.

n - 1 tasks drawn at random stay single, all others form one group with their mean gradient; the mean gradient of the
rows, weighted by their number of tasks, is g0. CAGrad's problem is solved for these n rows. A step of
`Combiner.backward` then costs n backwards in place of K. Where all task gradients come at once, as from
`mtrl_imgrad.gradients`, nothing is saved.

Departures from the authors' code: every task is in a row (theirs leaves one out at each step and averages the rest over
the wrong number); exact solver.
"""

from __future__ import annotations

from mtrl_imgrad.combiners.families.task_sampling import TasksPerStep
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.methods.cagrad import CAGrad
from mtrl_imgrad.combiners.solvers.choice import SolverName
from mtrl_imgrad.validation import Count, Seed


class CAGradFast(CAGrad):
    """Conflict-averse combination of a few random groups of tasks.

    Args:
        c: radius of the ball around the mean gradient, in units of its norm, see `CAGrad`.
        tasks_per_step: rows n of a step; the authors take 4 for MT10 and 8 for MT50. With n >= K it is `CAGrad`, but
            for ``rescale``.
        rescale: divide by ``1 + c``, as the authors do here.
        seed: of the generator that draws the tasks; None (default): the run's, see `Combiner.set_random_seed`.
        solver: see `CAGrad`.
        update_every: see `GramianCombiner`.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        MissingDependencyError: if ``solver="cvxpy"`` and cvxpy is not installed.
    """

    name = "cagrad_fast"
    departures = "Every task is in one of the rows, where their code leaves one out at each step; exact solver."

    def __init__(
        self,
        c: float = 0.4,
        *,
        tasks_per_step: TasksPerStep = 4,
        rescale: bool = True,
        seed: Seed | None = None,
        solver: SolverName = "exact",
        update_every: Count = 1,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(c, rescale=rescale, solver=solver, update_every=update_every, reduction=reduction)
        self.tasks_per_step = tasks_per_step
        self._sample_tasks(self.tasks_per_step, seed)

    def _divisor(self) -> float:
        return 1 + self.c if self.rescale else 1.0
