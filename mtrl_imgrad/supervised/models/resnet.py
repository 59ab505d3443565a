"""ResNet (He et al., CVPR 2016, arXiv 1512.03385), with parameters named as torchvision and timm name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk, check_images

_BASIC, _BOTTLENECK = 1, 4
DILATED_STRIDE = 8
_DEPTHS = {18: ((2, 2, 2, 2), _BASIC), 50: ((3, 4, 6, 3), _BOTTLENECK)}
"""Blocks of the four stages, and how much wider a block's end is than its middle."""


class ResNetTrunk(Trunk):
    """All of a ResNet but its last pooling and dense layer.

    Args:
        depth: 18 or 50.
        channels: of the four stages' blocks, 64 to 512 in the published networks.
        dilated: whether the last two stages keep the resolution and widen their convolutions instead (Yu, Koltun,
            Funkhouser, CVPR 2017, arXiv 1705.09914): the maps are then an eighth of the image's size, else a 32nd.
    """

    has_published_weights = True
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, channels: Sequence[int], dilated: bool) -> None:
        super().__init__()
        counts, expansion = _DEPTHS[depth]
        self.stage_channels = [width * expansion for width in channels]
        self.conv1 = nn.Conv2d(3, channels[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        strides, dilations = ((1, 2, 1, 1), (1, 1, 2, 4)) if dilated else ((1, 2, 2, 2), (1, 1, 1, 1))
        self.stride = DILATED_STRIDE if dilated else 32
        seen = channels[0]
        for number, (width, count) in enumerate(zip(channels, counts, strict=True)):
            before, end = dilations[max(number - 1, 0)], self.stage_channels[number]
            block = partial(ResidualBlock, width=width, end=end, bottleneck=expansion == _BOTTLENECK)
            blocks = [block(seen, stride=strides[number], dilation=before)]
            blocks += [block(end, dilation=dilations[number]) for _ in range(count - 1)]
            seen = end
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def stage(self, number: int, maps: Tensor, kept: list[Any]) -> Tensor:
        """See `Trunk.stage`: the four stages of residual blocks, the first with what comes before them."""
        return self.layer(number)(maps if number else self.stem(maps))

    def stage_modules(self, number: int) -> list[nn.Module]:
        """See `Trunk.stage_modules`."""
        return [self.layer(number)]

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """See `Trunk.load_published`."""
        self.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})

    def layer(self, number: int) -> nn.Sequential:
        """The residual blocks of a stage."""
        return [self.layer1, self.layer2, self.layer3, self.layer4][number]

    def stem(self, images: Tensor) -> Tensor:
        """What the first block reads, of images from 0 to 1.

        Raises:
            ArgumentError: if ``images`` is not ``[B, 3, H, W]``, of a dilated network with H and W multiples of 8.
        """
        check_images(images, self.stride if self.stride == DILATED_STRIDE else 1)
        return self.maxpool(self.relu(self.bn1(self.conv1((images - self.mean) / self.std))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or one between two 1x1 (bottleneck), and what was there before."""

    def __init__(
        self, seen: int, width: int, end: int, *, stride: int = 1, dilation: int = 1, bottleneck: bool
    ) -> None:
        super().__init__()
        self.is_bottleneck = bottleneck
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
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        if self.is_bottleneck:
            residual = self.bn3(self.conv3(self.relu(residual)))
        return self.relu(residual + (maps if self.downsample is None else self.downsample(maps)))
