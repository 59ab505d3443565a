"""ResNet (He et al., CVPR 2016, arXiv 1512.03385), with parameters named as torchvision and timm name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ResNetTrunk"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images from 0 to 1: what published weights expect."""
_BASIC, _BOTTLENECK = 1, 4
_DEPTHS = {18: ((2, 2, 2, 2), _BASIC), 50: ((3, 4, 6, 3), _BOTTLENECK)}
"""Blocks of the four stages, and how much wider a block's end is than its middle."""


class ResNetTrunk(nn.Module):
    """All of a ResNet but its last pooling and dense layer.

    Args:
        depth: 18 or 50.
        channels: of the four stages' blocks, 64 to 512 in the published networks.
        dilated: whether the last two stages keep the resolution and widen their convolutions instead (Yu, Koltun,
            Funkhouser, CVPR 2017, arXiv 1705.09914): the maps are then an eighth of the image's size, else a 32nd.
    """

    mean: Tensor
    std: Tensor
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int, channels: Sequence[int], dilated: bool) -> None:
        super().__init__()
        counts, self.expansion = _DEPTHS[depth]
        self.conv1 = nn.Conv2d(3, channels[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        strides, dilations = ((1, 2, 1, 1), (1, 1, 2, 4)) if dilated else ((1, 2, 2, 2), (1, 1, 1, 1))
        self.stride = 8 if dilated else 32
        seen = channels[0]
        for number, (width, count) in enumerate(zip(channels, counts, strict=True)):
            before = dilations[max(number - 1, 0)]
            blocks = [_Block(seen, width, self.expansion, strides[number], before)]
            seen = width * self.expansion
            blocks += [_Block(seen, width, self.expansion, 1, dilations[number]) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.channels = seen
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Maps ``[B, channels, H / stride, W / stride]`` of images from 0 to 1."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1((images - self.mean) / self.std))))
        return self.layer4(self.layer3(self.layer2(self.layer1(maps))))


class _Block(nn.Module):
    """Two 3x3 convolutions, or one between two 1x1 (bottleneck), and what was there before."""

    def __init__(self, seen: int, width: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.is_bottleneck = expansion == _BOTTLENECK
        end = width * expansion
        wide: dict[str, Any] = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": False}
        if self.is_bottleneck:
            self.conv1 = nn.Conv2d(seen, width, kernel_size=1, bias=False)
            self.conv2 = nn.Conv2d(width, width, stride=stride, **wide)
            self.conv3 = nn.Conv2d(width, end, kernel_size=1, bias=False)
            self.bn3 = nn.BatchNorm2d(end)
        else:
            self.conv1 = nn.Conv2d(seen, width, stride=stride, **wide)
            self.conv2 = nn.Conv2d(width, width, **wide)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or seen != end:
            self.downsample = nn.Sequential(nn.Conv2d(seen, end, 1, stride=stride, bias=False), nn.BatchNorm2d(end))

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, end, H / stride, W / stride]``."""
        found = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        if self.is_bottleneck:
            found = self.bn3(self.conv3(self.relu(found)))
        return self.relu(found + (maps if self.downsample is None else self.downsample(maps)))
