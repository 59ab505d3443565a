"""The dense head of dilated ResNets."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_RATES = (12, 24, 36)


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., DeepLabv3, arXiv 1706.05587), then the prediction, enlarged.

    Args:
        seen: channels of the maps.
        channels: of each branch.
        stride: by how much the prediction is enlarged.
        task: its kind and its channels.
        protocol: see `DenseHead`.
    """

    def __init__(self, seen: int, channels: int, stride: int, task: TaskSpec, protocol: Protocol) -> None:
        super().__init__()
        self.finish, self.protocol, self.stride = task.record.head, protocol, stride
        self.branches = nn.ModuleList(
            [_block(seen, channels, 1), *(_block(seen, channels, 3, dilation=rate) for rate in _RATES)]
        )
        # No batch norm: of a single image one pooled vector has no variance.
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(seen, channels, 1), nn.ReLU())
        self.project = _block((len(_RATES) + 2) * channels, channels, 1)
        self.spatial = _block(channels, channels, 3)
        self.output = nn.Conv2d(channels, task.channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """The prediction ``[B, channels, stride * h, stride * w]``."""
        pooled = self.pooled(maps).expand(-1, -1, *maps.shape[2:])
        joined = self.project(torch.cat([*(branch(maps) for branch in self.branches), pooled], dim=1))
        raw = self.output(self.spatial(joined))
        enlarged = F.interpolate(raw, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return self.finish(enlarged, self.protocol)


def _block(seen: int, channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(seen, channels, size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )
