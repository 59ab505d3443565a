"""The parts of a training step: batches, each with the tasks that it has targets for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtrl_imgrad.supervised.misfits import collate
from mtrl_imgrad.supervised.splits import ItemDataset


@dataclass(frozen=True)
class Part:
    """A batch on the device.

    Attributes:
        images: ``[B, ...]``.
        targets: by task; of one task where every task has a loader of its own.
        whole: images of the batch, those of other ranks included.
    """

    images: Tensor
    targets: Mapping[str, Tensor]
    whole: int


class Feed(Protocol):
    """The source of a trainer's batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch."""

    def steps(self, epoch: int) -> Iterator[list[Part]]:
        """The batches of every step of an epoch, in an order that follows from seed and epoch."""

    def evaluation(self, split: str) -> Iterator[Part]:
        """All batches of a split."""


def load_parts(
    split: ItemDataset,
    batches: Iterable[list[int]],
    tasks: list[str],
    *,
    device: torch.device,
    num_workers: int,
    generator: torch.Generator,
) -> Iterator[Part]:
    """Read batches and bring them to the device.

    Args:
        split: to read from.
        batches: indices of the items of each.
        tasks: whose targets are wanted.
        device: to bring them to.
        num_workers: processes that read.
        generator: of the readers' seeds.

    Raises:
        DatasetError: if an item is not ``(image, {task name: target})``.
    """
    loader = DataLoader(
        split,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=partial(collate, tasks=tasks),
        generator=generator,
        pin_memory=device.type == "cuda",
    )
    for images, targets in loader:
        wanted = {name: targets[name].to(device, non_blocking=True) for name in tasks}
        yield Part(images.to(device, non_blocking=True), wanted, len(images))
