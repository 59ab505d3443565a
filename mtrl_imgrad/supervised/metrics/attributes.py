"""F1 of a binary attribute."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_imgrad.supervised.masks import UNKNOWN_ATTRIBUTE
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import check_shapes, int_zeros
from mtrl_imgrad.validation import checked


@checked
class AttributeMetric(Metric):
    """``f1 = 2 TP / (2 TP + FP + FN)`` over the split, between 0 and 1; an attribute is predicted if its logit is > 0.

    0 if the attribute occurs neither in targets nor in predictions, as in the published code. Both protocols agree.
    """

    higher_is_better: ClassVar = {"f1": True}

    def _zeros(self) -> dict[str, Tensor]:
        return {"both": int_zeros(), "predicted": int_zeros(), "true": int_zeros(), "images": int_zeros()}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From logits and targets ``[B, 1]``; -1 in the target where it is unknown."""
        fits = prediction.ndim == 2 and prediction.shape[1] == 1 and target.shape == prediction.shape
        check_shapes(prediction, target, "both [B, 1]", fits)
        known = target != UNKNOWN_ATTRIBUTE
        predicted, true = (prediction > 0) & known, target > 0.5
        return {
            "both": (predicted & true).sum(),
            "predicted": predicted.sum(),
            "true": true.sum(),
            "images": known.sum(),
        }

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        f1 = 2 * sums["both"] / (sums["predicted"] + sums["true"]).clamp_min(1)
        return {"f1": torch.where(sums["images"] > 0, f1, torch.nan)}
