"""A loss for each kind of task (Liu, Johns, Davison: MTAN, CVPR 2019, arXiv 1803.10704, section 4.1.2).

Dense losses are means over the measured pixels of a batch. A batch without one has loss zero with a graph: its gradient
is zero for every parameter, and the other tasks of the batch still count. The code behind the published tables divides
by zero there, under both protocols we do not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.masks import IGNORED_LABEL, UNKNOWN_ATTRIBUTE, measured_pixels
from mtrl_imgrad.supervised.protocol import Protocol


def segmentation_loss(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labelled pixels.

    Args:
        log_probabilities: ``[B, C, H, W]``.
        labels: ``[B, H, W]``, int64, -1 where there is no label.
    """
    if log_probabilities.ndim < 2 or labels.shape != log_probabilities[:, 0].shape:
        raise ArgumentError(
            "log_probabilities and labels must be [B, C, H, W] and [B, H, W], got "
            f"{list(log_probabilities.shape)} and {list(labels.shape)}"
        )
    return _mean_of_labelled(log_probabilities, labels)


def depth_loss(prediction: Tensor, target: Tensor, protocol: Protocol = "fixed") -> Tensor:
    """Mean absolute error over the measured pixels.

    Args:
        prediction: ``[B, 1, H, W]``.
        target: ``[B, 1, H, W]``, 0 where there is no measurement.
        protocol: see `measured_pixels`.
    """
    _check_same_shape(prediction=prediction, target=target)
    return _masked_mean((prediction - target).abs().squeeze(1), measured_pixels(target, protocol))


def normal_loss(prediction: Tensor, target: Tensor, protocol: Protocol = "fixed") -> Tensor:
    """One minus the mean cosine, over the measured pixels.

    Args:
        prediction: ``[B, 3, H, W]``, unit vectors.
        target: ``[B, 3, H, W]``, unit vectors, (0, 0, 0) where there is no measurement.
        protocol: see `measured_pixels`.
    """
    _check_same_shape(prediction=prediction, target=target)
    return _masked_mean(1 - (prediction * target).sum(dim=1), measured_pixels(target, protocol))


def attribute_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy.

    The same function as a sigmoid followed by the cross-entropy of probabilities, which the published code uses, but
    finite and with a gradient for every logit.

    Args:
        logits: ``[B, 1]``.
        target: ``[B, 1]``, 0 or 1, floating; -1 where unknown.
    """
    _check_same_shape(logits=logits, target=target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _masked_mean(entropy, target != UNKNOWN_ATTRIBUTE)


def classification_loss(log_probabilities: Tensor, classes: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labelled images.

    Args:
        log_probabilities: ``[B, C]``.
        classes: ``[B]``, int64, -1 where unknown.
    """
    if log_probabilities.ndim != 2 or classes.shape != log_probabilities.shape[:1]:
        raise ArgumentError(
            "log_probabilities and classes must be [B, C] and [B], got "
            f"{list(log_probabilities.shape)} and {list(classes.shape)}"
        )
    return _mean_of_labelled(log_probabilities, classes)


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        prediction: ``[B, 1]``.
        target: ``[B, 1]``, NaN where unknown.
    """
    _check_same_shape(prediction=prediction, target=target)
    known = ~target.isnan()
    # A NaN in a difference would come back through the gradient of `where`.
    return _masked_mean((prediction - target.nan_to_num(0.0)).square(), known)


def _check_same_shape(**pair: Tensor) -> None:
    """Two tensors by their names; broadcasting would make another loss of them."""
    first, second = pair.values()
    if first.shape != second.shape:
        raise ArgumentError(f"{' and '.join(pair)} must have the same shape, got {first.shape} and {second.shape}")


def _mean_of_labelled(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    total = F.nll_loss(log_probabilities, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp_min(1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    # `where`, not a product: whatever the network says at an unmeasured pixel, NaN included, must not count.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
