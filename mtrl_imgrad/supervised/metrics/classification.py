"""Accuracy of a classification."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mtrl_imgrad.supervised.masks import IGNORED_LABEL
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import ClassCount, check_shapes, int_zeros
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import checked


@checked
class ClassificationMetric(Metric):
    """``accuracy``: share of labelled images whose most probable class is theirs, in per cent. Both protocols agree.

    Args:
        num_classes: C.
        protocol: makes no difference.
    """

    higher_is_better: ClassVar = {"accuracy": True}

    def __init__(self, num_classes: ClassCount, protocol: Protocol = "fixed") -> None:
        self.num_classes = num_classes
        super().__init__(protocol)

    def _zeros(self) -> dict[str, Tensor]:
        return {"hits": int_zeros(), "images": int_zeros()}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From log-probabilities or any other scores ``[B, C]`` and classes ``[B]``."""
        size = self.num_classes
        fits = prediction.ndim == 2 and prediction.shape[1] == size and target.shape == prediction.shape[:1]
        check_shapes(prediction, target, f"[B, {size}] and [B]", fits)
        known = target != IGNORED_LABEL
        return {"hits": ((prediction.argmax(dim=1) == target) & known).sum(), "images": known.sum()}

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"accuracy": 100 * sums["hits"] / sums["images"]}
