"""A network a task, stitched together between the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.composed import ComposedModel
from mtrl_imgrad.supervised.models.trunk import Trunk
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_OWN = 0.9
"""Weight of a network's own maps at the start; the others share the rest (the paper's figure 5)."""


class CrossStitch(ComposedModel):
    """Cross-stitch networks (Misra, Shrivastava, Gupta, Hebert, CVPR 2016, arXiv 1604.03539).

    Before every stage but the first, network k reads ``sum_j a_kj z_j`` of all networks' maps, ``a`` a number for each
    feature map. (`SegNetCrossStitch` has the simpler form of MTAN's comparison.)

    Every loss reaches every network and stitch, except its last stage and the stitch before that, which only its own
    task's loss does.

    Args:
        backbone, tasks, width, protocol: as in `ComposedModel`; every network is a trunk.
    """

    architecture = "cross_stitch"

    def __init__(self, backbone: Backbone, tasks: Sequence[TaskSpec], width: float, protocol: Protocol) -> None:
        super().__init__(backbone, tasks, width, protocol)
        trunks = [self._trunk() for _ in self.tasks]
        self.trunks = nn.ModuleList(trunks)
        self.stitches = nn.ModuleList(
            nn.ModuleList(_Stitch(index, len(trunks), channels) for index in range(len(trunks)))
            for channels in trunks[0].stage_channels[:-1]
        )
        self._finish(trunks[0])

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head of ``task``, the last stage of its network, and the stitch before that."""
        index = self._index(task)
        trunk = cast(Trunk, self.trunks[index])
        last_stitches = cast(nn.ModuleList, self.stitches[-1])
        return [self.head(task), last_stitches[index], *trunk.stage_modules(len(trunk.stage_channels) - 1)]

    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """See `ComposedModel.representations`; only the last stage of the others is left out."""
        trunks = [cast(Trunk, trunk) for trunk in self.trunks]
        kept: list[list[Any]] = [[] for _ in trunks]
        maps = [trunk.stage(0, images, own) for trunk, own in zip(trunks, kept, strict=True)]
        everybody = list(range(len(trunks)))
        for number, stitches in enumerate(self.stitches, start=1):
            wanted = [self._index(task) for task in tasks] if number == len(self.stitches) else everybody
            seen = [cast(nn.ModuleList, stitches)[k](maps) for k in wanted]
            maps = [trunks[k].stage(number, one, kept[k]) for k, one in zip(wanted, seen, strict=True)]
        return maps


class _Stitch(nn.Module):
    """What one network reads of all of them."""

    def __init__(self, index: int, networks: int, channels: int) -> None:
        super().__init__()
        weights = torch.full((networks, channels), (1 - _OWN) / max(networks - 1, 1))
        weights[index] = _OWN
        self.weight = nn.Parameter(weights)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """``sum_j weight[j] maps[j]``, channel by channel."""
        shape = (-1, *[1] * (maps[0].ndim - 2))
        parts = [row.view(shape) * one for row, one in zip(self.weight.unbind(), maps, strict=True)]
        return sum(parts[1:], start=parts[0])
