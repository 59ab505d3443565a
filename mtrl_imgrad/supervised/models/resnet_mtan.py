"""ResNet with task attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.composed import ComposedModel
from mtrl_imgrad.supervised.models.resnet import ResidualBlock, ResNetTrunk
from mtrl_imgrad.supervised.models.segnet_mtan import attention_mask
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class ResNetMTAN(ComposedModel):
    """MTAN on ResNet: every task masks the maps of the four stages (Liu, Johns, Davison, CVPR 2019, 1803.10704).

    In the form of its authors' ResNet: a mask sees the maps before a stage's last block and what the task kept at the
    stage before, squeezes them to a quarter of the stage's channels, and masks the maps after that block. A bottleneck
    block that all tasks share links two stages. Batch normalisation there updates its running statistics once a task.

    Masks and heads are the tasks' own.

    Args:
        backbone, tasks, width, protocol: as in `ComposedModel`, of a ResNet.
    """

    architecture = "mtan"

    def __init__(self, backbone: Backbone, tasks: Sequence[TaskSpec], width: float, protocol: Protocol) -> None:
        super().__init__(backbone, tasks, width, protocol)
        self.trunk = trunk = cast(ResNetTrunk, self._trunk())
        channels = trunk.stage_channels
        self.links = nn.ModuleList(
            ResidualBlock(seen, _quarter(given), given, bottleneck=True) for seen, given in pairwise(channels)
        )
        read = [channels[0], *(2 * count for count in channels[1:])]
        self.attentions = nn.ModuleList(
            nn.ModuleList(
                attention_mask(seen, given, _quarter(given)) for seen, given in zip(read, channels, strict=True)
            )
            for _ in self.tasks
        )
        self._finish(trunk)

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head and the attention masks of ``task``."""
        return [self.head(task), self.attentions[self._index(task)]]

    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """See `ComposedModel.representations`."""
        first, last = self._maps(images)
        return [self._attend(cast(nn.ModuleList, self.attentions[self._index(task)]), first, last) for task in tasks]

    def _maps(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The maps before the last block of each stage, and those after it."""
        first, last = [], []
        maps = self.trunk.stem(images)
        for number in range(len(self.trunk.stage_channels)):
            layer = self.trunk.layer(number)
            first.append(layer[:-1](maps))
            maps = layer[-1](first[-1])
            last.append(maps)
        return first, last

    def _attend(self, masks: nn.ModuleList, first: list[Tensor], last: list[Tensor]) -> Tensor:
        """What a task keeps at the end."""
        kept = masks[0](first[0]) * last[0]
        for mask, link, before, after in zip(masks[1:], self.links, first[1:], last[1:], strict=True):
            linked = F.adaptive_max_pool2d(link(kept), before.shape[2:])  # halved where the trunk halves
            kept = mask(torch.cat([before, linked], dim=1)) * after
        return kept


def _quarter(channels: int) -> int:
    return max(channels // 4, 1)
