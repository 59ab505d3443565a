"""Angles between predicted and measured surface normals."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from mtrl_imgrad.supervised.masks import measured_pixels
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.counting import check_shapes, counts_of, float_zeros, int_zeros, masked_sum
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import checked

_WITHIN = {"within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}
_BIN = 0.001
_BINS = round(180 / _BIN)
_MEANS = ("ang_mean", *_WITHIN)


@checked
class NormalMetric(Metric):
    """``ang_mean`` and ``ang_median`` in degrees; shares of pixels below 11.25, 22.5 and 30 degrees in per cent.

    ``"fixed"``: over all measured pixels of the split; the angle of p and t is ``atan2(|p x t|, p . t)``, exact for
    small angles too and for vectors of any length, 90 degrees for a prediction of length zero. The median comes from a
    histogram of 0.001 degrees, so it is right to 0.001 degrees and needs no pixel to be kept.

    ``"paper"``: ``acos`` of the clamped scalar product (in float32 never between 0 and 0.019 degrees); every one of the
    five is computed for a batch and averaged over batches, each with the same weight. So ``ang_median`` is a mean of
    medians. A batch without a measured pixel adds nothing, where the published code would divide by zero.

    A NaN in a prediction at a measured pixel makes mean and median NaN, and is within no limit.
    """

    higher_is_better: ClassVar = {
        "ang_mean": False,
        "ang_median": False,
        "within_11_25": True,
        "within_22_5": True,
        "within_30": True,
    }

    def _zeros(self) -> dict[str, Tensor]:
        zeros = {name: float_zeros() for name in (*_MEANS, "weight")}
        if self.protocol == "paper":
            return {**zeros, "ang_median": float_zeros()}
        return {**zeros, "histogram": int_zeros(_BINS)}

    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """From two maps ``[B, 3, H, W]``; zero vectors in the target where there is no measurement."""
        fits = prediction.ndim == 4 and prediction.shape[1] == 3 and target.shape == prediction.shape
        check_shapes(prediction, target, "both [B, 3, H, W]", fits)
        mask = measured_pixels(target, self.protocol)
        angle = _ANGLES[self.protocol](prediction, target)
        sums = {"ang_mean": masked_sum(angle, mask), "weight": mask.sum().double()}
        for name, limit in _WITHIN.items():
            sums[name] = ((angle < limit) & mask).sum().double()
        if self.protocol == "paper":
            pixels = sums["weight"].clamp_min(1)
            means = {name: value / pixels for name, value in sums.items()}
            return {**means, "ang_median": _masked_median(angle, mask)}
        bins = (angle / _BIN).nan_to_num(nan=_BINS - 1).long().clamp(0, _BINS - 1)
        return {**sums, "histogram": counts_of(bins, mask, _BINS)}

    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        means = {name: sums[name] / sums["weight"] for name in _MEANS}
        if self.protocol == "paper":
            means["ang_median"] = sums["ang_median"] / sums["weight"]
        else:
            median = _histogram_median(sums["histogram"])
            means["ang_median"] = torch.where(means["ang_mean"].isnan(), torch.nan, median)
        return {name: 100 * means[name] if name in _WITHIN else means[name] for name in self.higher_is_better}


def _angle_by_tangent(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees ``[B, H, W]``."""
    dtype = torch.promote_types(prediction.dtype, target.dtype)
    prediction, target = prediction.to(dtype), target.to(dtype)
    across = torch.linalg.vector_norm(torch.linalg.cross(prediction, target, dim=1), dim=1)
    along = (prediction * target).sum(dim=1)
    angle = torch.rad2deg(torch.atan2(across, along))
    return torch.where((prediction == 0).all(dim=1), 90.0, angle)


def _angle_by_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees ``[B, H, W]``, as published."""
    return torch.rad2deg(torch.acos((prediction * target).sum(dim=1).clamp(-1, 1)))


_ANGLES: dict[Protocol, Callable[[Tensor, Tensor], Tensor]] = {"fixed": _angle_by_tangent, "paper": _angle_by_cosine}


def _masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the two middle values where ``mask`` holds, 0 if it holds nowhere, NaN if one of them is NaN."""
    # Unmasked elements are sorted to the end, so that the middle is at a place known on the device.
    ordered = torch.where(mask, values, torch.inf).flatten().sort().values
    count = mask.sum()
    middle = torch.stack([(count - 1).clamp_min(0) // 2, count // 2])
    median = torch.where(count > 0, ordered.gather(0, middle).double().mean(), 0.0)
    return torch.where((values.isnan() & mask).any(), torch.nan, median)


def _histogram_median(counts: Tensor) -> Tensor:
    """The median of values counted in bins of `_BIN`, taken to be in the middles of their bins; NaN for none."""
    upto = counts.cumsum(0)
    total = upto[-1]
    ranks = torch.stack([torch.floor((total + 1) / 2), torch.floor(total / 2) + 1])  # the two middle ones, from 1
    middles = (torch.searchsorted(upto, ranks).double() + 0.5) * _BIN
    return torch.where(total > 0, middles.mean(), torch.nan)
