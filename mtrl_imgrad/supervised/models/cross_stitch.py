"""A SegNet a task, stitched together between the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.layers import (
    SEGNET_CHANNELS,
    DenseHead,
    SegNetTrunk,
    check_image_size,
    initialise_xavier,
    pool,
    scaled,
    unpool,
)
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

__all__ = ["SegNetCrossStitch"]


class SegNetCrossStitch(TaskModel):
    """Cross-stitch networks on SegNet (Misra, Shrivastava, Gupta, Hebert, CVPR 2016, arXiv 1604.03539).

    The form of MTAN's comparison, behind the published "Cross-Stitch" rows: every stage but the first reads a learned
    linear combination of all networks' maps, ``sum_k a_k z_k`` with one scalar a network and a place, starting at one.
    All networks read the same combination; in the paper each reads its own, K x K scalars for every feature map.
    Convolutions start Xavier-normal as in our other SegNets, where the authors' start uniform with the same variance.

    Every loss reaches every network, except its last decoder stage, which only its own task's loss does.
    74 941 804 parameters on NYUv2.

    Args:
        tasks: of kind segmentation, depth or normal.
        width: multiplies the number of feature maps.
        protocol: see `DenseHead`.
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
        trunk = cast(SegNetTrunk, self.trunks[self._index(task)])
        return [self.head(task), trunk.decoder[-1]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, see `TaskModel`."""
        check_image_size(images)
        maps, places = self._encode(images)
        return self._predict(self._decode(maps, places))

    def _encode(self, images: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """The pooled maps of every network after its last encoder stage, and by stage where the maxima were."""
        maps: list[Tensor] = []
        places: list[list[Tensor]] = []
        for depth, stages in enumerate(zip(*(trunk.encoder for trunk in self.trunks), strict=True)):
            seen = _stitch(maps, self.encoder_stitches[depth - 1]) if depth else images
            pooled = [pool(stage(seen)[1]) for stage in stages]
            maps = [values for values, _ in pooled]
            places.append([indices for _, indices in pooled])
        return maps, places

    def _decode(self, maps: list[Tensor], places: list[list[Tensor]]) -> list[Tensor]:
        """The last maps of every network."""
        decoders = zip(*(trunk.decoder for trunk in self.trunks), strict=True)
        for stages, stitch, indices in zip(decoders, self.decoder_stitches, reversed(places), strict=True):
            seen = _stitch(maps, stitch)
            maps = [stage(unpool(seen, where))[1] for stage, where in zip(stages, indices, strict=True)]
        return maps


def _stitch(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``sum_k weights[k] maps[k]``."""
    return torch.stack([weight * z for weight, z in zip(weights, maps, strict=True)]).sum(dim=0)
