"""A combiner of your own: every task counts with the inverse of its gradient's norm.

    python examples/own_combiner.py

A line in ``mtrl_imgrad/combiners/registry.py`` would give it a name. As an object it goes wherever a name does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners import GramianCombiner, Status, Weights, make_combiner
from mtrl_imgrad.combiners.state.tables import TaskIds


class UnitGradients(GramianCombiner):
    """The mean of the unit gradients, in the unit of the mean gradient's length.

    A method that needs only the inner products of the gradients states its weights, and how well they do what they
    should: here there is nothing to solve, so the residual is 0. What users may hand in (zero gradients, NaN) is its
    own affair as well.
    """

    name = "unit_gradients"
    paper = "The example of mtrl_imgrad's documentation"

    def solve(self, gramian: Tensor, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Weights:
        """``[..., K, K]`` to weights ``[..., K]``."""
        gramian = gramian.double()
        norms = gramian.diagonal(dim1=-2, dim2=-1).sqrt()
        values = torch.where(norms > 0, 1 / norms, 0) / gramian.shape[-1]
        length = (values[..., None, :] @ gramian @ values[..., None]).squeeze((-1, -2)).sqrt()
        mean_length = gramian.mean((-1, -2)).clamp_min(0).sqrt()
        values = torch.where(length[..., None] > 0, values * (mean_length / length)[..., None], values)
        finite = torch.isfinite(gramian).all(-1).all(-1)
        status = torch.where(finite, int(Status.SOLVED), int(Status.NON_FINITE))
        status = torch.where((norms == 0).all(-1), int(Status.ZERO_GRADIENTS), status)
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
