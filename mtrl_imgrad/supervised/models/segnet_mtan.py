"""SegNet with task attention, the network of the published NYUv2 and CityScapes tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.layers import (
    SEGNET_CHANNELS,
    DenseHead,
    SegNetMaps,
    SegNetTrunk,
    conv_block,
    initialise_xavier,
    scaled,
)
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class SegNetMTAN(TaskModel):
    """MTAN on SegNet: every task masks the trunk's maps at ten places (Liu, Johns, Davison, CVPR 2019, 1803.10704).

    A mask sees the trunk's map and what the task kept at the place before; the convolutions between two places are
    shared by all tasks. 44 229 073 parameters on NYUv2, 41 206 984 on CityScapes.

    There is no single shared representation, so no `FeatureModel`. Batch normalisation in the shared convolutions
    between places updates its running statistics once for each task in every forward, as in the authors' code.

    Args:
        tasks: of kind segmentation, depth or normal.
        width: multiplies the number of feature maps.
        protocol: see `DenseHead`.
    """

    name = "segnet_mtan"
    dense_tasks = True

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        channels = scaled(SEGNET_CHANNELS, width)
        self.trunk = SegNetTrunk(channels)
        self.encoder_links = nn.ModuleList(
            conv_block(*sizes) for sizes in zip(channels, [*channels[1:], channels[-1]], strict=True)
        )
        self.decoder_links = nn.ModuleList(
            conv_block(*sizes) for sizes in zip(channels[::-1], _decoded(channels), strict=True)
        )
        self.attentions = nn.ModuleList(_TaskAttention(channels) for _ in self.tasks)
        self.task_heads = nn.ModuleList(DenseHead(channels[0], task, protocol) for task in self.tasks)
        initialise_xavier(self)

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head and the attention masks of ``task``."""
        return [self.head(task), self.attentions[self._index(task)]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, see `TaskModel`."""
        maps = self.trunk.all_maps(images)
        links = (self.encoder_links, self.decoder_links)
        return self._predict([attention(maps, *links) for attention in self.attentions])


class _TaskAttention(nn.Module):
    """The ten masks of one task, and what passes them."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        seen = [channels[0], *(2 * count for count in channels[1:])]
        self.encoder = nn.ModuleList(attention_mask(*sizes) for sizes in zip(seen, channels, strict=True))
        self.decoder = nn.ModuleList(
            attention_mask(unpooled + decoded, decoded)
            for unpooled, decoded in zip(channels[::-1], _decoded(channels), strict=True)
        )

    def forward(self, maps: SegNetMaps, encoder_links: nn.ModuleList, decoder_links: nn.ModuleList) -> Tensor:
        """The maps ``[B, C, H, W]`` that the task keeps at the end of the decoder."""
        kept: list[Tensor] = []  # nothing yet at the first place
        for mask, link, first, last in zip(
            self.encoder, encoder_links, maps.encoder_first, maps.encoder_last, strict=True
        ):
            masked = mask(torch.cat([first, *kept], dim=1)) * last
            kept = [F.max_pool2d(link(masked), kernel_size=2, stride=2)]
        (result,) = kept
        for mask, link, unpooled, last in zip(
            self.decoder, decoder_links, maps.unpooled, maps.decoder_last, strict=True
        ):
            enlarged = F.interpolate(result, scale_factor=2, mode="bilinear", align_corners=True)
            result = mask(torch.cat([unpooled, link(enlarged)], dim=1)) * last
        return result


def _decoded(channels: Sequence[int]) -> list[int]:
    """Feature maps that the decoder's stages give, coarsest first."""
    return [*channels[-2::-1], channels[0]]


def attention_mask(seen: int, given: int, middle: int | None = None) -> nn.Sequential:
    """Two 1x1 convolutions to a mask from 0 to 1.

    Args:
        seen: channels that it reads.
        given: of the mask.
        middle: between the two; None for as many as the mask has.
    """
    middle = middle or given
    return nn.Sequential(
        nn.Conv2d(seen, middle, kernel_size=1),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, given, kernel_size=1),
        nn.BatchNorm2d(given),
        nn.Sigmoid(),
    )
