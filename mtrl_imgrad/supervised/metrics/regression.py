"""Mean absolute error of a number."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import check_shapes, float_zeros, masked_sum
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import Positive, checked


@checked
class RegressionMetric(Metric):
    """``mae``, the mean of ``|p - t|`` over the split, in the unit of the table. Both protocols agree.

    Args:
        scale: of a standardized target: the size of its unit in the unit of the table.
        protocol: makes no difference.
    """

    higher_is_better: ClassVar = {"mae": False}

    def __init__(self, scale: Positive = 1.0, protocol: Protocol = "fixed") -> None:
        self.scale = scale
        super().__init__(protocol)

    def _zeros(self) -> dict[str, Tensor]:
        return {"error": float_zeros(), "weight": float_zeros()}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From numbers and targets ``[B, 1]``; NaN in the target where it is unknown."""
        fits = prediction.ndim == 2 and prediction.shape[1] == 1 and target.shape == prediction.shape
        check_shapes(prediction, target, "both [B, 1]", fits)
        known = ~target.isnan()
        return {"error": masked_sum((prediction - target).abs(), known), "weight": known.sum().double()}

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"mae": self.scale * sums["error"] / sums["weight"]}
