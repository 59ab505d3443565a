"""A training split of which only some images are labeled for some tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.supervised.splits import ItemDataset, length, set_epoch
from mtrl_imgrad.supervised.tasks import TaskSpec


class PartlyLabeled(ItemDataset):
    """A share of a split's images with all labels; with ``full_tasks`` the others, too, with the labels of these alone.

    Args:
        split: may have ``set_epoch``.
        tasks: of the split.
        fraction: share of the images that keep all labels, at least one; drawn by ``seed``.
        full_tasks: names of tasks that keep the labels of all images.
        seed: of the draw.
    """

    def __init__(
        self, split: ItemDataset, tasks: Sequence[TaskSpec], fraction: float, full_tasks: Sequence[str], seed: int
    ) -> None:
        self._split = split
        self._others = [task for task in tasks if task.name not in full_tasks]
        size = length(split)
        drawn = np.random.default_rng(seed).permutation(size)[: max(1, round(fraction * size))]
        self._labeled = frozenset(drawn.tolist())
        self._images = list(range(size)) if full_tasks else sorted(self._labeled)

    def __len__(self) -> int:
        return len(self._images)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn, where the split has any."""
        set_epoch(self._split, epoch)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        place = self._images[index]
        image, targets = self._split[place]
        if place not in self._labeled:
            targets = {
                **targets,
                **{task.name: torch.full_like(targets[task.name], task.record.unknown) for task in self._others},
            }
        return image, targets
