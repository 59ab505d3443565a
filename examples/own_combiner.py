"""A combiner of your own with a state: every task counts with the inverse of its gradient's running norm.

    python examples/own_combiner.py

A line in ``mtrl_imgrad/combiners/registry.py`` would give it a name. As an object it goes wherever a name does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners import GramianCombiner, Status, Weights, make_combiner
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable


class UnitGradients(GramianCombiner):
    """``sum_k g_k / n_k``, as long as the mean gradient; ``n_k <- beta n_k + (1 - beta) |g_k|``, at first ``|g_k|``.

    A method that needs only the inner products of the gradients states its weights, and how well they do what they
    should: here there is nothing to solve, so the residual is 0. It answers for zero gradients and NaN as well.

    Args:
        beta: share of the past in the running norms, in [0, 1).
    """

    name = "unit_gradients"
    paper = "The example of mtrl_imgrad's documentation"

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        self.beta = beta
        # A table is a part of state_dict() as soon as it is an attribute; tasks may be absent from a step.
        self._norms = TaskTable()

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[K, K]`` to weights ``[K]``."""
        gramian = gramian.double()
        finite = torch.isfinite(gramian).all()
        norms = gramian.diagonal().sqrt()
        before = self._norms.rows(norms, tasks)
        running = torch.where(before > 0, norms.lerp(before, self.beta), norms)
        self._norms.write(running, tasks, where=finite)  # a step that is not finite leaves no trace
        values = torch.where(running > 0, 1 / running, 0)
        length = (values @ gramian @ values).clamp_min(0).sqrt()
        values = torch.where(length > 0, values * gramian.mean().clamp_min(0).sqrt() / length, values)
        status = torch.where(finite, int(Status.SOLVED), int(Status.NON_FINITE))
        status = torch.where((norms == 0).all(), int(Status.ZERO_GRADIENTS), status)
        return Weights(values, residual=torch.zeros_like(length), status_code=status)


def main() -> None:
    """Beside IMGrad, on three gradients of which one is a hundred times the others."""
    jacobian = torch.tensor([[100.0, 0, 20, 0], [-0.5, 1, 0, 0], [0, 0.2, -1, 0.5]])
    for combiner in (UnitGradients(), make_combiner("linear_scalarization"), make_combiner("imgrad")):
        found = combiner(jacobian, losses=torch.ones(3))
        cosines = found.diagnostics["direction_cosines"].tolist()
        print(f"{combiner.name:>20}  cosine with each task: {'  '.join(f'{cosine:+.2f}' for cosine in cosines)}")


if __name__ == "__main__":
    main()
