"""SegNet with hard parameter sharing: one trunk, a small head a task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.models.layers import (
    SEGNET_CHANNELS,
    DenseHead,
    SegNetTrunk,
    check_image_size,
    initialise_xavier,
    scaled,
)
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

__all__ = ["SegNet"]


@checked
class SegNet(FeatureModel):
    """The "split" network of MTAN's comparison (arXiv 1803.10704); with one task, its single-task baseline.

    25 055 185 parameters on NYUv2 (13 classes, depth, normals), 25 017 672 on CityScapes (7 classes, depth).

    Args:
        tasks: of kind segmentation, depth or normal.
        width: multiplies the number of feature maps.
        protocol: see `DenseHead`.
    """

    name = "segnet"
    dense_tasks = True

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        channels = scaled(SEGNET_CHANNELS, width)
        self.trunk = SegNetTrunk(channels)
        self.task_heads = nn.ModuleList(DenseHead(channels[0], task, protocol) for task in self.tasks)
        initialise_xavier(self)

    def features(self, images: Tensor) -> Tensor:
        """The decoder's last maps ``[B, 64 * width, H, W]``."""
        check_image_size(images)
        return self.trunk(images).decoder_last[-1]
