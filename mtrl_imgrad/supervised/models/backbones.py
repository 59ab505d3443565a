"""Hard parameter sharing on a ResNet: DeepLab heads for dense tasks, linear ones for those of whole images."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.models.layers import VectorHead, scaled
from mtrl_imgrad.supervised.models.resnet import ResNetTrunk
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

__all__ = ["ResNet18", "ResNet50", "load_backbone"]

_CHANNELS = (64, 128, 256, 512)
_ASPP = 256
_RATES = (12, 24, 36)


class _ResNetModel(FeatureModel):
    """A ResNet, dilated if a task is dense, and a head a task.

    Args:
        tasks: of any kind.
        width: multiplies the number of feature maps; 1 is the published network.
        protocol: see `DenseHead`.
    """

    depth: ClassVar[int]

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        dilated = any(task.record.dense for task in self.tasks)
        self.trunk = ResNetTrunk(self.depth, scaled(_CHANNELS, width), dilated)
        (aspp,) = scaled([_ASPP], width)
        channels = self.trunk.channels
        self.task_heads = nn.ModuleList(
            _DeepLabHead(channels, aspp, self.trunk.stride, task, protocol)
            if task.record.dense
            else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), VectorHead(channels, task, protocol))
            for task in self.tasks
        )

    def features(self, images: Tensor) -> Tensor:
        """The trunk's maps, an eighth of the image's size if a task is dense, else a 32nd.

        Raises:
            ArgumentError: if ``images`` is not ``[B, 3, H, W]`` with H and W multiples of 8 (dense tasks).
        """
        step = 8 if self.trunk.stride == 8 else 1
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % step or images.shape[3] % step:
            raise ArgumentError(f"images must be [B, 3, H, W], H and W multiples of {step}, got {list(images.shape)}")
        return self.trunk(images)


class ResNet18(_ResNetModel):
    """ResNet-18; 11 689 512 parameters with ImageNet's dense layer, 11 176 512 without. See `_ResNetModel`."""

    name = "resnet18"
    depth = 18


class ResNet50(_ResNetModel):
    """ResNet-50; 25 557 032 parameters with ImageNet's dense layer, 23 508 032 without. See `_ResNetModel`."""

    name = "resnet50"
    depth = 50


class _DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., DeepLabv3, arXiv 1706.05587), then the prediction, enlarged."""

    def __init__(self, seen: int, channels: int, stride: int, task: TaskSpec, protocol: Protocol) -> None:
        super().__init__()
        self.finish, self.protocol, self.stride = task.record.head, protocol, stride
        self.branches = nn.ModuleList(
            [_block(seen, channels, 1), *(_block(seen, channels, 3, dilation=rate) for rate in _RATES)]
        )
        # No batch norm: of a single image one pooled vector has no variance.
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(seen, channels, 1), nn.ReLU())
        self.project = _block((len(_RATES) + 2) * channels, channels, 1)
        self.spatial = _block(channels, channels, 3)
        self.output = nn.Conv2d(channels, task.channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """The prediction ``[B, channels, stride * h, stride * w]``."""
        pooled = self.pooled(maps).expand(-1, -1, *maps.shape[2:])
        found = self.project(torch.cat([*(branch(maps) for branch in self.branches), pooled], dim=1))
        raw = self.output(self.spatial(found))
        enlarged = F.interpolate(raw, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return self.finish(enlarged, self.protocol)


def _block(seen: int, channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(seen, channels, size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


@checked
def load_backbone(model: FeatureModel, path: str | os.PathLike[str]) -> None:
    """Take the trunk's first weights from a local file, in the names of torchvision and timm.

    Nothing is downloaded, and reading the file runs no code of it.

    Args:
        model: with a ResNet as ``trunk``, of width 1.
        path: a state dictionary, as ``torch.save`` or safetensors writes it; its dense layer ``fc`` is left out.

    Raises:
        ArgumentError: if the network has no such trunk, or the file cannot be read or is that of another network.
    """
    path = Path(path).expanduser()
    trunk = getattr(model, "trunk", None)
    if not isinstance(trunk, ResNetTrunk):
        raise ArgumentError(f"model must be resnet18 or resnet50 to take weights of a file, got {model.name!r}")
    try:
        state = _read_state(path)
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        trunk.load_state_dict(kept)
    except Exception as error:  # torch, pickle and safetensors raise what they like for a damaged file
        cause = textwrap.shorten(str(error), 200)
        raise ArgumentError(f"path: {path} does not hold the weights of {model.name} ({cause})") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
