"""Kinds with a target for every pixel: segmentation, depth, surface normals."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from mtrl_imgrad.supervised.kinds.encodings import negative, other_lengths, outside_classes
from mtrl_imgrad.supervised.kinds.pictures import classes_picture, depth_picture, normals_picture
from mtrl_imgrad.supervised.kinds.record import TaskKind
from mtrl_imgrad.supervised.losses import depth_loss, normal_loss, segmentation_loss
from mtrl_imgrad.supervised.masks import IGNORED_LABEL, measured_pixels
from mtrl_imgrad.supervised.metrics.depth import DepthMetric
from mtrl_imgrad.supervised.metrics.normal import NormalMetric
from mtrl_imgrad.supervised.metrics.segmentation import SegmentationMetric
from mtrl_imgrad.supervised.protocol import Protocol

_SHORTEST_NORMAL = 1e-6
"""Of a raw prediction; below it a float32 vector has no direction worth the name."""


def _unit(vectors: Tensor, protocol: Protocol) -> Tensor:
    """Vectors ``[B, 3, H, W]`` of length 1.

    ``"paper"`` divides by the length, 0/0 = NaN included. ``"fixed"`` leaves a raw vector shorter than 1e-6 at zero,
    with gradient zero: its direction is noise, and the gradient of the division would be larger than 1e6.
    """
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    if protocol == "paper":
        return vectors / length
    return torch.where(length > _SHORTEST_NORMAL, vectors / length.clamp_min(_SHORTEST_NORMAL), 0)


SEGMENTATION = TaskKind(
    name="segmentation",
    loss=lambda prediction, target, protocol: segmentation_loss(prediction, target),
    metric=lambda task, protocol: SegmentationMetric(task.channels, protocol),
    head=lambda raw, protocol: F.log_softmax(raw, dim=1),
    measured=lambda target, protocol: target != IGNORED_LABEL,
    unknown=IGNORED_LABEL,
    dense=True,
    as_target=lambda prediction: prediction.argmax(dim=1),
    show=lambda task, labels, truth: classes_picture(labels),
    score="miou",
    misfit=outside_classes,
)

DEPTH = TaskKind(
    name="depth",
    loss=depth_loss,
    metric=lambda task, protocol: DepthMetric(protocol),
    head=lambda raw, protocol: raw,
    measured=measured_pixels,
    unknown=0.0,
    dense=True,
    as_target=lambda prediction: prediction,
    show=lambda task, depth, truth: depth_picture(depth[0], truth[0]),
    score="abs_err",
    score_is_error=True,
    channels=1,
    misfit=negative,
)

NORMAL = TaskKind(
    name="normal",
    loss=normal_loss,
    metric=lambda task, protocol: NormalMetric(protocol),
    head=_unit,
    measured=measured_pixels,
    unknown=0.0,
    dense=True,
    as_target=lambda prediction: prediction,
    show=lambda task, normals, truth: normals_picture(normals),
    score="ang_mean",
    score_is_error=True,
    channels=3,
    misfit=other_lengths,
)
