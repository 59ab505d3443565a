"""The convolutional network of the published CelebA tables."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.models.layers import VectorHead, scaled
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_GROUPS = ((64,), (128, 128), (256, 256), (512, 512))
"""Feature maps of the convolutions between two poolings."""
_DENSE = (512, 512)


class AttributeNet(FeatureModel):
    """Nine layers, seven convolutions and two dense ones, then a linear head for each task.

    The network of FAMO's CelebA experiment (Liu, Feng, Stone, Liu, NeurIPS 2023, arXiv 2306.03792), which later papers
    took over. 5 197 160 parameters with 40 attributes. The heads return logits; the published code ends in a sigmoid.

    Args:
        tasks: of whole images.
        width: multiplies the number of feature maps and of dense units.
        protocol: makes no difference here.
    """

    name = "attribute_net"
    dense_tasks = False

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        groups = [scaled(group, width) for group in _GROUPS]
        dense = scaled(_DENSE, width)
        self.convolutions = _convolutions(groups)
        self.dense = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *_dense_block(groups[-1][-1], dense[0]),
            *_dense_block(dense[0], dense[1]),
        )
        self.task_heads = nn.ModuleList(VectorHead(dense[-1], task, protocol) for task in self.tasks)

    def features(self, images: Tensor) -> Tensor:
        """The second dense layer's output ``[B, 512 * width]``.

        Raises:
            ArgumentError: if ``images`` is not ``[B, 3, H, W]`` with H and W of 8 or more, for three poolings.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 8:
            raise ArgumentError(f"images must be [B, 3, H, W] with H and W of 8 or more, got {list(images.shape)}")
        return self.dense(self.convolutions(images))


def _convolutions(groups: Sequence[Sequence[int]]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for group in groups:
        if layers:
            layers.append(nn.MaxPool2d(kernel_size=2))
        for count in group:
            layers += [
                nn.Conv2d(channels, count, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(count),
                nn.ReLU(inplace=True),
            ]
            channels = count
    return nn.Sequential(*layers)


def _dense_block(in_features: int, out_features: int) -> list[nn.Module]:
    return [
        nn.Linear(in_features, out_features, bias=False),
        nn.BatchNorm1d(out_features),
        nn.ReLU(inplace=True),
    ]
