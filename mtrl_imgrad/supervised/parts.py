"""The parts of a training step: batches, each with the tasks that it has targets for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.misfits import collate
from mtrl_imgrad.supervised.splits import ItemDataset
from mtrl_imgrad.supervised.tasks import TaskSpec


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


def training_batches(tasks: Sequence[TaskSpec], images: int, batch_size: int, ranks: int = 1) -> tuple[int, bool]:
    """How many batches a pass has, and whether a smaller last one is left out.

    It is left out where a rank would have one vector of it: that has no variance, which batch norm could use.

    Args:
        tasks: of the batches.
        images: that there are to learn from.
        batch_size: images of a batch, those of all ranks.
        ranks: that share each batch.

    Raises:
        ArgumentError: if no batch is left.
    """
    drop_last = all(not task.record.dense for task in tasks) and 0 < images % batch_size < 2 * ranks
    batches = images // batch_size if drop_last else math.ceil(images / batch_size)
    if batches == 0:
        names = ", ".join(repr(task.name) for task in tasks[:4])
        raise ArgumentError(
            f"task {names}: {images} training image(s) in batches of {batch_size}: batch norm needs two in a batch"
        )
    return batches, drop_last


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
