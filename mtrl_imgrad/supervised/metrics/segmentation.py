"""Mean intersection over union and pixel accuracy, from one confusion matrix over the split."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.masks import IGNORED_LABEL
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import ClassCount, check_shapes, counts_of, int_zeros
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import checked


@checked
class SegmentationMetric(Metric):
    """``miou`` and ``pix_acc``, in per cent.

    With confusion matrix C (rows: true class, columns: predicted), over the labelled pixels of the split:
    ``IoU_c = C_cc / (sum of row c + sum of column c - C_cc)``, ``miou`` their mean, ``pix_acc = trace / total``.

    A class that occurs in neither labels nor predictions has no IoU. ``"fixed"`` leaves it out of the mean, ``"paper"``
    lets it make the mean NaN.

    Args:
        num_classes: C.
        protocol: see above.
    """

    higher_is_better: ClassVar = {"miou": True, "pix_acc": True}

    def __init__(self, num_classes: ClassCount, protocol: Protocol = "fixed") -> None:
        self.num_classes = num_classes
        super().__init__(protocol)

    def compute(self) -> dict[str, float]:
        """See `Metric.compute`.

        Raises:
            ArgumentError: if a target had labels other than -1 and the classes; `update` cannot say so without
                waiting for the device.
        """
        foreign = int(self._sums["foreign"])
        if foreign:
            raise ArgumentError(f"target must hold labels from -1 to {self.num_classes - 1}, {foreign} pixels did not")
        return super().compute()

    def _zeros(self) -> dict[str, Tensor]:
        return {"confusion": int_zeros(self.num_classes**2), "foreign": int_zeros()}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From log-probabilities or any other scores ``[B, C, H, W]`` and labels ``[B, H, W]``."""
        size = self.num_classes
        fits = prediction.ndim == 4 and prediction.shape[1] == size and target.shape == prediction[:, 0].shape
        check_shapes(prediction, target, f"[B, {size}, H, W] and [B, H, W]", fits)
        cells = target * size + prediction.argmax(dim=1)  # of the confusion matrix, laid out flat
        known = (target >= 0) & (target < size)
        foreign = ~known & (target != IGNORED_LABEL)
        return {"confusion": counts_of(cells, known, size**2), "foreign": foreign.sum()}

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        confusion = sums["confusion"].view(self.num_classes, self.num_classes)
        hits = confusion.diagonal()
        union = confusion.sum(dim=0) + confusion.sum(dim=1) - hits
        iou = hits / union
        mean = iou.mean() if self.protocol == "paper" else iou.nanmean()
        return {"miou": 100 * mean, "pix_acc": 100 * hits.sum() / confusion.sum()}
