"""Absolute and relative depth error."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_imgrad.supervised.masks import measured_pixels
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import check_shapes, float_zeros, masked_sum
from mtrl_imgrad.validation import checked


@checked
class DepthMetric(Metric):
    """``abs_err``, the mean of ``|p - t|`` in the target's unit, and ``rel_err``, the mean of ``|p - t| / t``, a ratio.

    ``"fixed"`` takes the means over all measured pixels of the split, ``"paper"`` averages the means of the batches,
    each with the same weight. A batch without a measured pixel adds nothing, where the published code would divide by
    zero.
    """

    higher_is_better: ClassVar = {"abs_err": False, "rel_err": False}

    def _zeros(self) -> dict[str, Tensor]:
        return {"abs_err": float_zeros(), "rel_err": float_zeros(), "weight": float_zeros()}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From two maps ``[B, 1, H, W]``; 0 in the target where there is no measurement."""
        fits = prediction.ndim == 4 and prediction.shape[1] == 1 and target.shape == prediction.shape
        check_shapes(prediction, target, "both [B, 1, H, W]", fits)
        mask = measured_pixels(target, self.protocol)
        error = (prediction - target).abs().squeeze(1)
        sums = {
            "abs_err": masked_sum(error, mask),
            "rel_err": masked_sum(error / target.squeeze(1), mask),
            "weight": mask.sum().double(),
        }
        if self.protocol == "paper":
            pixels = sums["weight"].clamp_min(1)
            return {name: value / pixels for name, value in sums.items()}
        return sums

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        total = torch.stack([sums["abs_err"], sums["rel_err"]]) / sums["weight"]
        return dict(zip(self.higher_is_better, total, strict=True))
