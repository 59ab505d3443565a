"""Pieces that several networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.trunk import Trunk, check_images
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

SEGNET_CHANNELS = (64, 128, 256, 512, 512)
"""Feature maps of the five stages at width 1 (MTAN, section 4.1.1)."""
_CONVOLUTIONS = (2, 2, 3, 3, 3)
_STEP = 2 ** len(SEGNET_CHANNELS)
"""What five poolings must divide: an unpooling cannot give an odd size back."""
LARGEST_WIDTH = 1000
"""The published networks have up to 512 feature maps; no machine holds one a thousand times as wide."""


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Numbers of feature maps times ``width``, rounded.

    >>> scaled((64, 128), 0.125)
    [8, 16]

    Raises:
        ArgumentError: if ``width`` is not a positive number, or one of them would be zero.
    """
    if not 0 < width <= LARGEST_WIDTH:
        raise ArgumentError(f"width must be a positive number of at most {LARGEST_WIDTH}, got {width}")
    widened = [round(count * width) for count in channels]
    if min(widened) < 1:
        raise ArgumentError(f"width must leave at least one feature map of {min(channels)}, got {width}")
    return widened


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def pool(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Halve the height and width; returns the maxima and where they were."""
    return F.max_pool2d(maps, kernel_size=2, stride=2, return_indices=True)


def unpool(maps: Tensor, indices: Tensor) -> Tensor:
    """Put the values of ``maps`` back to where the maxima were, zeros elsewhere."""
    return F.max_unpool2d(maps, indices, kernel_size=(2, 2), stride=(2, 2))


def initialise_xavier(network: nn.Module) -> None:
    """Xavier-normal convolution weights and zero biases, as the authors of MTAN start their networks."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SegNetStage(nn.Module):
    """Convolutions of one resolution; returns the maps after the first of them and after the last."""

    def __init__(self, in_channels: int, out_channels: int, convolutions: int) -> None:
        super().__init__()
        self.first = conv_block(in_channels, out_channels)
        self.rest = nn.Sequential(*(conv_block(out_channels, out_channels) for _ in range(convolutions - 1)))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``[B, out_channels, H, W]`` after the first convolution, and after the last."""
        first = self.first(maps)
        return first, self.rest(first)


class SegNetMaps(NamedTuple):
    """What a `SegNetTrunk` computes on its way, a list entry a stage, in the order of computation."""

    encoder_first: list[Tensor]
    encoder_last: list[Tensor]
    unpooled: list[Tensor]
    decoder_last: list[Tensor]


class SegNetTrunk(Trunk):
    """SegNet's encoder and decoder (Badrinarayanan, Kendall, Cipolla 2017, arXiv 1511.00561).

    Five stages each way; the decoder's stages are in the order of computation, coarsest first. A network keeps where
    its own maxima were.

    Args:
        channels: feature maps of the five encoder stages.
    """

    stride = 1

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            SegNetStage(*sizes) for sizes in zip([3, *channels[:-1]], channels, _CONVOLUTIONS, strict=True)
        )
        self.decoder = nn.ModuleList(
            SegNetStage(*sizes)
            for sizes in zip(channels[::-1], [*channels[-2::-1], channels[0]], _CONVOLUTIONS[::-1], strict=True)
        )
        self.stage_channels = [*channels, *channels[-2::-1], channels[0]]

    def stage(self, number: int, maps: Tensor, kept: list[Any]) -> Tensor:
        """See `Trunk.stage`."""
        if number == 0:
            check_images(maps, _STEP)
        if number < len(self.encoder):
            maps, places = pool(self.encoder[number](maps)[1])
            kept.append(places)
            return maps
        _, maps = self.decoder[number - len(self.encoder)](unpool(maps, kept.pop()))
        return maps

    def stage_modules(self, number: int) -> list[nn.Module]:
        """See `Trunk.stage_modules`."""
        return [[*self.encoder, *self.decoder][number]]

    def all_maps(self, images: Tensor) -> SegNetMaps:
        """All maps of the way down and up."""
        check_images(images, _STEP)
        collected = SegNetMaps([], [], [], [])
        maps, places = images, []
        for stage in self.encoder:
            first, last = stage(maps)
            maps, indices = pool(last)
            places.append(indices)
            collected.encoder_first.append(first)
            collected.encoder_last.append(last)
        for stage, indices in zip(self.decoder, reversed(places), strict=True):
            collected.unpooled.append(unpool(maps, indices))
            _, maps = stage(collected.unpooled[-1])
            collected.decoder_last.append(maps)
        return collected


class DenseHead(nn.Module):
    """A 3x3 and a 1x1 convolution, and what the kind of task asks for: log-softmax, nothing, or unit length.

    Args:
        in_channels: of the maps that it reads.
        task: its kind and its channels.
        protocol: how normals are made unit vectors, see `mtrl_imgrad.supervised.kinds.dense`.
    """

    def __init__(self, in_channels: int, task: TaskSpec, protocol: Protocol) -> None:
        super().__init__()
        self.finish = task.record.head
        self.protocol = protocol
        self.spatial = nn.Conv2d(in_channels, in_channels, kernel_size=3, padding=1)
        self.output = nn.Conv2d(in_channels, task.channels, kernel_size=1)

    def forward(self, maps: Tensor) -> Tensor:
        """The prediction ``[B, channels, H, W]``."""
        return self.finish(self.output(self.spatial(maps)), self.protocol)


class VectorHead(nn.Linear):
    """A linear layer on a representation ``[B, C]``, and what the kind of task asks for.

    Args:
        in_features: C.
        task: its kind and its channels.
        protocol: see `DenseHead`.
    """

    def __init__(self, in_features: int, task: TaskSpec, protocol: Protocol) -> None:
        super().__init__(in_features, task.channels)
        self.finish = task.record.head
        self.protocol = protocol

    def forward(self, features: Tensor) -> Tensor:
        """The prediction ``[B, channels]``."""
        return self.finish(super().forward(features), self.protocol)
