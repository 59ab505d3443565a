"""SI, scale-invariant: the sum of the logarithms of the losses, which no unit of a loss can change.

A baseline of Navon et al., ICML 2022, arXiv 2202.01017; it has no paper of its own. The loss ``sum_i log L_i`` gives
task i the weight ``1 / L_i``; ours is ``1 / (K L_i)``, in the unit of the mean, and ``reduction="sum"`` is theirs.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.positive_loss import PositiveLossCombiner, weights_above
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights


class SI(PositiveLossCombiner):
    """Gradient of the mean logarithm of the losses. With one task ``d = g / L``.

    Args:
        lower_bound: taken from the losses, see `PositiveLossCombiner`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "si"
    departures = "No epsilon under the logarithm; mean in place of the sum."
    citation = "navon2022multi"

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[..., K]`` weights ``1 / (K L_i)``; see `LossCombiner.weights`."""
        above = self.above(losses, tasks)
        return weights_above(1 / (losses.shape[-1] * above), losses, above)
