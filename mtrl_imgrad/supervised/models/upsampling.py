"""The dense head of vision transformers."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.layers import conv_block
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_STEP = 4


class UpsamplingHead(nn.Module):
    """Two 3x3 convolutions, each enlarged fourfold, then the prediction.

    After SETR's progressive upsampling (Zheng et al., CVPR 2021, arXiv 2012.15840), which has four steps of two.

    Args:
        seen: channels of the maps, a sixteenth of the image's size.
        channels: of the convolutions.
        task: its kind and its channels.
        protocol: see `DenseHead`.
    """

    def __init__(self, seen: int, channels: int, task: TaskSpec, protocol: Protocol) -> None:
        super().__init__()
        self.finish, self.protocol = task.record.head, protocol
        self.blocks = nn.ModuleList([conv_block(seen, channels), conv_block(channels, channels)])
        self.output = nn.Conv2d(channels, task.channels, kernel_size=1)

    def forward(self, maps: Tensor) -> Tensor:
        """The prediction ``[B, channels, 16 * h, 16 * w]``."""
        for block in self.blocks:
            maps = F.interpolate(block(maps), scale_factor=_STEP, mode="bilinear", align_corners=False)
        return self.finish(self.output(maps), self.protocol)
