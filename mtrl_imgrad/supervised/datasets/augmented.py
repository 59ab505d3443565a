"""Images with a target for every pixel, zoomed and mirrored alike: what the readers of such sets have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.supervised.datasets.augmentation import apply_view, draw_view
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class AugmentedDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Item i is ``(image [3, H, W], {task name: target})``, targets as `TaskSpec` describes them.

    Args:
        root: The folder of the set; ``~`` is the home folder.
        split: Which part of it.
        augment: Whether to zoom and mirror (`draw_view`).
        protocol: ``"paper"`` keeps the published code's quirks in what it does to depth and normals.
        seed: Of the augmentation; item i of epoch e is the same for the same seed, whichever worker reads it.
        inverse_depth: Whether depth is inverse depth.
    """

    tasks: tuple[TaskSpec, ...]

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        augment: bool,
        protocol: Protocol,
        seed: int,
        inverse_depth: bool = False,
    ) -> None:
        self.root, self.split, self.inverse_depth = Path(root).expanduser(), split, inverse_depth
        self.augment, self.protocol, self.seed = augment, protocol, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def layers(self, index: int) -> dict[str, Tensor]:
        """The image and the targets by task, all floating ``[C, H, W]``, labels ``[1, H, W]``; not augmented."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn; workers that are already running see it too."""
        if epoch < 0:
            raise ArgumentError(f"epoch must not be negative, got {epoch}")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.root}, split {self.split!r}, has items 0 to {len(self) - 1}, asked for {index}")
        layers = self.layers(index)
        if self.augment:
            height, width = layers["image"].shape[1:]
            view = draw_view(height, width, torch_generator(self.seed, Stream.AUGMENTATION, int(self._epoch), index))
            layers = apply_view(layers, view, inverse_depth=self.inverse_depth, protocol=self.protocol)
        for task in self.tasks:
            if task.kind == "segmentation":
                layers[task.name] = layers[task.name][0].long()
        return layers.pop("image"), layers
