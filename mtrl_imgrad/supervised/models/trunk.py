"""What an architecture asks of a network that it makes several tasks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels from 0 to 1: what published weights expect."""


def check_images(images: Tensor, step: int) -> None:
    """Whether images are ``[B, 3, H, W]`` with H and W multiples of ``step``.

    Raises:
        ArgumentError: They are not.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % step or images.shape[3] % step:
        raise ArgumentError(f"images must be [B, 3, H, W] with H and W multiples of {step}, got {list(images.shape)}")


class Trunk(nn.Module, ABC):
    """A network from images to a representation, in stages: an architecture may mix several networks between two.

    A stage reads maps ``[B, C, ...]``, the first one images ``[B, 3, H, W]``.
    """

    stage_channels: Sequence[int]
    """C after each stage."""
    stride: int
    """How many times smaller than the image the representation is."""
    has_published_weights: ClassVar[bool] = False
    """Whether `load_published` works."""

    @property
    def channels(self) -> int:
        """C of the representation."""
        return self.stage_channels[-1]

    @abstractmethod
    def stage(self, number: int, maps: Tensor, kept: list[Any]) -> Tensor:
        """Maps after a stage.

        Args:
            number: of the stage, from 0.
            maps: after the stage before, of this network or mixed from several; for stage 0 the images.
            kept: what this network keeps for its later stages; empty before stage 0.

        Raises:
            ArgumentError: if images have a size that the network cannot take.
        """

    @abstractmethod
    def stage_modules(self, number: int) -> list[nn.Module]:
        """The modules that hold the parameters of a stage; not of stage 0, which may have parameters of no module."""

    def forward(self, images: Tensor) -> Tensor:
        """The representation: the maps after the last stage."""
        return self.run(range(len(self.stage_channels)), images, [])

    def run(self, numbers: Sequence[int], maps: Tensor, kept: list[Any]) -> Tensor:
        """Several stages in turn, see `stage`."""
        for number in numbers:
            maps = self.stage(number, maps, kept)
        return maps

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a classifier as torchvision or timm names them; its last dense layer is left out.

        Raises:
            RuntimeError: if names or shapes are those of another network.
        """
        raise NotImplementedError
