"""One loader for all tasks: every image has a target, known or not, of every task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import RandomSampler

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.supervised.parts import Part, load_parts
from mtrl_imgrad.supervised.replicas import Replica
from mtrl_imgrad.supervised.splits import ItemDataset, Splits, length


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
        ArgumentError: if no batch has the images that batch norm needs.
    """

    def __init__(
        self, data: Splits, batch_size: int, replica: Replica, seed: int, device: torch.device, num_workers: int
    ) -> None:
        self.data, self.batch_size, self.replica, self.seed = data, batch_size, replica, seed
        self._tasks = [task.name for task in data.tasks]
        if self.steps_per_epoch == 0:
            raise ArgumentError(
                f"data: {length(data.train)} training image(s) in batches of {batch_size}: batch norm needs two in a "
                "batch of each rank"
            )
        self._reading: dict[str, Any] = {"device": device, "num_workers": num_workers}

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch."""
        count = length(self.data.train)
        return count // self.batch_size if self._drops_last() else math.ceil(count / self.batch_size)

    def steps(self, epoch: int) -> Iterator[list[Part]]:
        """See `Feed`."""
        if hasattr(self.data.train, "set_epoch"):
            self.data.train.set_epoch(epoch)
        generator = torch_generator(self.seed, Stream.ORDER, epoch)
        order = RandomSampler(self.data.train, generator=generator)  # type: ignore[arg-type]
        batches = self.replica.batches(order, self.batch_size, shared=True, drop_last=self._drops_last())
        count = length(self.data.train)
        for number, part in enumerate(
            load_parts(self.data.train, batches, self._tasks, generator=generator, **self._reading)
        ):
            yield [dataclasses.replace(part, whole=min(self.batch_size, count - number * self.batch_size))]

    def evaluation(self, split: str) -> Iterator[Part]:
        """See `Feed`."""
        return self.in_order(self.data.evaluation[split])

    def in_order(self, items: ItemDataset) -> Iterator[Part]:
        """All batches of a data set."""
        batches = self.replica.batches(range(length(items)), self.batch_size, shared=False, drop_last=False)
        generator = torch_generator(self.seed, Stream.ORDER, 0)  # the readers' seeds, not the global generator's
        return load_parts(items, batches, self._tasks, generator=generator, **self._reading)

    def _drops_last(self) -> bool:
        """Whether the last batch is left out: one vector alone has no variance that batch norm could use."""
        return (
            all(not task.record.dense for task in self.data.tasks)
            and 0 < length(self.data.train) % self.batch_size < 2 * self.replica.size
        )
