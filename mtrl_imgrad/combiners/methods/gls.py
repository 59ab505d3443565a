"""GLS, geometric loss strategy: the geometric mean of the losses.

Chennupati et al., CVPR Workshops 2019, arXiv 1904.08492.

The loss ``(prod_i L_i)^(1/K)`` gives task i the weight ``loss / (K L_i)``. It is a mean already: for equal losses all
weights are 1 / K. The product is taken as the exponential of the mean logarithm, so many tasks do not overflow.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.positive_loss import PositiveLossCombiner, weights_above
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights


class GLS(PositiveLossCombiner):
    """Gradient of the geometric mean of the losses. With one task ``d = g``.

    Args:
        lower_bound: taken from the losses, see `PositiveLossCombiner`.
        reduction: ``"mean"`` (the authors') or ``"sum"``.
    """

    name = "gls"
    departures = "None; the focused variant, which weighs a task twice, is left out."
    citation = "chennupati2019multinet"

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights; see `LossCombiner.weights`."""
        above = self.above(losses, tasks)
        mean = above.log().mean(-1, keepdim=True).exp()
        return weights_above(mean / (losses.shape[-1] * above), losses, above)
