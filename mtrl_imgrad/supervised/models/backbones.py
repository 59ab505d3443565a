"""The networks that several tasks can share, each with the heads that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from mtrl_imgrad.supervised.models.deeplab import DeepLabHead
from mtrl_imgrad.supervised.models.layers import (
    SEGNET_CHANNELS,
    DenseHead,
    SegNetTrunk,
    VectorHead,
    initialise_xavier,
    scaled,
)
from mtrl_imgrad.supervised.models.resnet import ResNetTrunk
from mtrl_imgrad.supervised.models.trunk import Trunk
from mtrl_imgrad.supervised.models.upsampling import UpsamplingHead
from mtrl_imgrad.supervised.models.vit import ViTTrunk
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_RESNET_CHANNELS = (64, 128, 256, 512)
_HEAD_CHANNELS = 256


@dataclass(frozen=True)
class Backbone:
    """What an architecture builds a network from.

    Attributes:
        name: As in `make_model`.
        trunk: A trunk of a width, for some dense task or for none.
        head: A task's layers on the trunk's representation, by trunk, task, protocol and width.
        dense_tasks: As in `TaskModel`.
        start: Sets the first weights of a whole network where torch's own are not wanted.
        refuses: Architectures that make no sense on it, with the reason.
    """

    name: str
    trunk: Callable[[float, bool], Trunk]
    head: Callable[[Trunk, TaskSpec, Protocol, float], nn.Module]
    dense_tasks: bool | None = None
    start: Callable[[nn.Module], None] = lambda network: None
    refuses: Mapping[str, str] = field(default_factory=dict)


def _segnet(width: float, dense: bool) -> Trunk:
    return SegNetTrunk(scaled(SEGNET_CHANNELS, width))


def _segnet_head(trunk: Trunk, task: TaskSpec, protocol: Protocol, width: float) -> nn.Module:
    return DenseHead(trunk.channels, task, protocol)


def _resnet(depth: int, width: float, dense: bool) -> Trunk:
    return ResNetTrunk(depth, scaled(_RESNET_CHANNELS, width), dense)


def _resnet_head(trunk: Trunk, task: TaskSpec, protocol: Protocol, width: float) -> nn.Module:
    if not task.record.dense:
        return _pooled_head(trunk, task, protocol)
    (channels,) = scaled([_HEAD_CHANNELS], width)
    return DeepLabHead(trunk.channels, channels, trunk.stride, task, protocol)


def _vit(heads: int, width: float, dense: bool) -> Trunk:
    return ViTTrunk(heads, width)


def _vit_head(trunk: Trunk, task: TaskSpec, protocol: Protocol, width: float) -> nn.Module:
    if not task.record.dense:
        return _pooled_head(trunk, task, protocol)
    (channels,) = scaled([_HEAD_CHANNELS], width)
    return UpsamplingHead(trunk.channels, channels, task, protocol)


def _pooled_head(trunk: Trunk, task: TaskSpec, protocol: Protocol) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), VectorHead(trunk.channels, task, protocol))


_NO_PYRAMID = "its masks follow a convolutional network from one resolution to the next"
_RECORDS = (
    Backbone("segnet", _segnet, _segnet_head, dense_tasks=True, start=initialise_xavier),
    *(Backbone(f"resnet{depth}", partial(_resnet, depth), _resnet_head) for depth in (18, 50)),
    *(
        Backbone(f"vit_{size}", partial(_vit, heads), _vit_head, refuses={"mtan": _NO_PYRAMID})
        for size, heads in (("tiny", 3), ("small", 6))
    ),
)
BACKBONES = {record.name: record for record in _RECORDS}
