"""A loader for every task: pictures of its own, as many as there are, in batches and an order of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler

from mtrl_imgrad.seeding import Stream, numpy_generator, torch_generator
from mtrl_imgrad.supervised.parts import Part, load_parts, training_batches
from mtrl_imgrad.supervised.splits import TaskSplits, length, set_epoch


class TaskFeed:
    """A batch a task and step, for the tasks that `TaskSplits.mixing` has in the step; see `Feed`.

    What a loader gives follows from seed, epoch, task and how often it has begun in the epoch, so that a run that is
    continued after an epoch goes on with the same batches.

    Args:
        data: of the run.
        batch_size: images of a task's batch, where ``data.batch_sizes`` has no other.
        seed: of the orders.
        device: of the batches.
        num_workers: processes that read, for each task.

    Raises:
        ArgumentError: if a task has no whole batch of two images, and needs it for batch norm.
    """

    def __init__(self, data: TaskSplits, batch_size: int, seed: int, device: torch.device, num_workers: int) -> None:
        self.data, self.seed = data, seed
        self.batch_sizes = {task.name: data.batch_sizes.get(task.name, batch_size) for task in data.tasks}
        self._reading: dict[str, Any] = {"device": device, "num_workers": num_workers}
        passes = {
            task.name: training_batches([task], length(data.train[task.name]), self.batch_sizes[task.name])
            for task in data.tasks
        }
        self.batches = {name: batches for name, (batches, _) in passes.items()}
        """Batches in one pass over a task's pictures."""
        self._drops_last = {name: drops for name, (_, drops) in passes.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch."""
        if self.data.mixing == "longest":
            return max(self.batches.values())
        return math.ceil(sum(self.batches.values()) / self.data.tasks_per_step)

    def steps(self, epoch: int) -> Iterator[list[Part]]:
        """See `Feed`."""
        for split in self.data.train.values():
            set_epoch(split, epoch)
        endless = {name: self._endless(epoch, k) for k, name in enumerate(self.batches)}
        for names in self.schedule(epoch):
            yield [next(endless[name]) for name in names]

    def schedule(self, epoch: int) -> Iterator[list[str]]:
        """The tasks of every step of an epoch."""
        names = list(self.batches)
        if self.data.mixing == "longest":
            yield from [names] * self.steps_per_epoch
        elif self.data.mixing == "round_robin":
            yield from self._in_turn()
        else:
            generator = numpy_generator(self.seed, Stream.MIXING, epoch)
            shares = np.array(list(self.batches.values())) / sum(self.batches.values())
            for _ in range(self.steps_per_epoch):
                drawn = generator.choice(len(names), self.data.tasks_per_step, replace=False, p=shares)
                yield [names[k] for k in sorted(drawn)]

    def evaluation(self, split: str) -> Iterator[Part]:
        """See `Feed`."""
        for name, items in self.data.evaluation[split].items():
            batches = BatchSampler(range(length(items)), self.batch_sizes[name], drop_last=False)
            generator = torch_generator(self.seed, Stream.ORDER, 0)  # the readers' seeds, not the global generator's
            yield from load_parts(items, batches, [name], generator=generator, **self._reading)

    def _in_turn(self) -> Iterator[list[str]]:
        """Every batch once; where a task has ended, its turn goes to the next that has not."""
        left = dict(self.batches)
        waiting = list(left)
        while waiting:
            chosen = waiting[: self.data.tasks_per_step]
            for name in chosen:
                left[name] -= 1
            waiting = waiting[len(chosen) :] + [name for name in chosen if left[name]]
            yield [name for name in left if name in chosen]

    def _endless(self, epoch: int, k: int) -> Iterator[Part]:
        """A task's batches, pass after pass, each in another order."""
        name = list(self.batches)[k]
        items, begun = self.data.train[name], 0
        while True:
            generator = torch_generator(self.seed, Stream.TASK_ORDER, epoch, k, begun)
            order = RandomSampler(items, generator=generator)  # type: ignore[arg-type]
            batches = BatchSampler(order, self.batch_sizes[name], drop_last=self._drops_last[name])
            yield from load_parts(items, batches, [name], generator=generator, **self._reading)
            begun += 1
