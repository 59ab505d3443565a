"""A SegNet a task, stitched together between the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.layers import (
    SEGNET_CHANNELS,
    DenseHead,
    SegNetTrunk,
    initialise_xavier,
    scaled,
)
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class SegNetCrossStitch(TaskModel):
    """Cross-stitch networks on SegNet (Misra, Shrivastava, Gupta, Hebert, CVPR 2016, arXiv 1604.03539).

    The form of MTAN's comparison, behind the published "Cross-Stitch" rows: every stage but the first reads a learned
    linear combination of all networks' maps, ``sum_k a_k z_k`` with one scalar a network and a place, starting at one.
    All networks read the same combination; in the paper each reads its own, K x K scalars for every feature map.
    Convolutions start Xavier-normal as in our other SegNets, where the authors' start uniform with the same variance.

    Every loss reaches every network, except its last decoder stage, which only its own task's loss does.
    74 941 804 parameters on NYUv2.

    Args:
        tasks, width, protocol: as in `SegNetMTAN`.
    """

    name = "segnet_cross_stitch"
    dense_tasks = True

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        channels = scaled(SEGNET_CHANNELS, width)
        self.trunks = nn.ModuleList(SegNetTrunk(channels) for _ in self.tasks)
        self.encoder_stitches = nn.Parameter(torch.ones(len(channels) - 1, len(self.tasks)))
        self.decoder_stitches = nn.Parameter(torch.ones(len(channels), len(self.tasks)))
        self.task_heads = nn.ModuleList(DenseHead(channels[0], task, protocol) for task in self.tasks)
        initialise_xavier(self)

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head of ``task`` and the last decoder stage of its network."""
        return [self.head(task), self._trunks()[self._index(task)].decoder[-1]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, see `TaskModel`."""
        kept: list[list[Any]] = [[] for _ in self.tasks]
        maps = [images] * len(self.tasks)
        stitches = [None, *self.encoder_stitches, *self.decoder_stitches]
        for number, stitch in enumerate(stitches):
            seen = images if stitch is None else _stitch(maps, stitch)
            maps = [trunk.stage(number, seen, own) for trunk, own in zip(self._trunks(), kept, strict=True)]
        return self._predict(maps)

    def _trunks(self) -> list[SegNetTrunk]:
        return [cast(SegNetTrunk, trunk) for trunk in self.trunks]


def _stitch(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``sum_k weights[k] maps[k]``."""
    return torch.stack([weight * z for weight, z in zip(weights, maps, strict=True)]).sum(dim=0)
