"""Images with a target for every pixel, zoomed and mirrored alike: what the readers of such sets have in common."""

from __future__ import annotations

import os
from abc import abstractmethod

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.supervised.datasets.augmentation import apply_view, draw_view
from mtrl_imgrad.supervised.datasets.folder import FolderDataset
from mtrl_imgrad.supervised.protocol import Protocol


class AugmentedDataset(FolderDataset):
    """Items are images with a target for every pixel.

    Args:
        root, split: As in `FolderDataset`.
        augment: Whether to zoom and mirror (`draw_view`).
        protocol: ``"paper"`` keeps the published code's quirks in what it does to depth and normals.
        seed: Of the augmentation; item i of epoch e is the same for the same seed, whichever worker reads it.
        inverse_depth: Whether depth is inverse depth.
    """

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
        super().__init__(root, split)
        self.augment, self.protocol, self.seed, self.inverse_depth = augment, protocol, seed, inverse_depth
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @abstractmethod
    def layers(self, index: int) -> dict[str, Tensor]:
        """The image and the targets by task, all floating ``[C, H, W]``, labels ``[1, H, W]``; not augmented."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn; workers that are already running see it too."""
        if epoch < 0:
            raise ArgumentError(f"epoch must not be negative, got {epoch}")
        self._epoch.fill_(epoch)

    def item(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FolderDataset.item`."""
        layers = self.layers(index)
        if self.augment:
            height, width = layers["image"].shape[1:]
            view = draw_view(height, width, torch_generator(self.seed, Stream.AUGMENTATION, int(self._epoch), index))
            layers = apply_view(layers, view, inverse_depth=self.inverse_depth, protocol=self.protocol)
        for task in self.tasks:
            if task.kind == "segmentation":
                layers[task.name] = layers[task.name][0].long()
        return layers.pop("image"), layers
