"""One loader for all tasks: every image has a target, known or not, of every task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import RandomSampler

from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.supervised.parts import Part, load_parts, training_batches
from mtrl_imgrad.supervised.replicas import Replica
from mtrl_imgrad.supervised.splits import ItemDataset, Splits, length, set_epoch


class JointFeed:
    """A batch a step; see `Feed`.

    Args:
        data: of the run.
        batch_size: images of a batch, those of all ranks.
        replica: this process among those that share the batches.
        seed: of the order.
        device: of the batches.
        num_workers: processes that read.

    Raises:
        ArgumentError: if there is no batch of two images, and batch norm needs it.
    """

    def __init__(
        self, data: Splits, batch_size: int, replica: Replica, seed: int, device: torch.device, num_workers: int
    ) -> None:
        self.data, self.batch_size, self.replica, self.seed = data, batch_size, replica, seed
        self._tasks = [task.name for task in data.tasks]
        self._images = length(data.train)
        self.steps_per_epoch, self._drop_last = training_batches(data.tasks, self._images, batch_size, replica.size)
        """Updates of an epoch."""
        self._reading: dict[str, Any] = {"device": device, "num_workers": num_workers}

    def steps(self, epoch: int) -> Iterator[list[Part]]:
        """See `Feed`."""
        set_epoch(self.data.train, epoch)
        generator = torch_generator(self.seed, Stream.ORDER, epoch)
        order = RandomSampler(self.data.train, generator=generator)  # type: ignore[arg-type]
        batches = self.replica.batches(order, self.batch_size, shared=True, drop_last=self._drop_last)
        for number, part in enumerate(
            load_parts(self.data.train, batches, self._tasks, generator=generator, **self._reading)
        ):
            yield [dataclasses.replace(part, whole=min(self.batch_size, self._images - number * self.batch_size))]

    def evaluation(self, split: str) -> Iterator[Part]:
        """See `Feed`."""
        return self.in_order(self.data.evaluation[split])

    def in_order(self, items: ItemDataset) -> Iterator[Part]:
        """All batches of a data set."""
        batches = self.replica.batches(range(length(items)), self.batch_size, shared=False, drop_last=False)
        generator = torch_generator(self.seed, Stream.ORDER, 0)  # the readers' seeds, not the global generator's
        return load_parts(items, batches, self._tasks, generator=generator, **self._reading)
