"""A rank's part in a supervised run of several ranks.

Batches are those of one process; each rank takes its part of every one. Losses are means over what was measured, so a
rank counts by its number of labelled images or pixels, and the step is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import BatchSampler, Sampler

from mtrl_imgrad.combiners.replicas.agreement import mean_losses
from mtrl_imgrad.combiners.replicas.exchange import Exchange
from mtrl_imgrad.combiners.replicas.ranks import Ranks, check_alone
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.mean_losses import known_images
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.step_diagnostics import probe_gramian
from mtrl_imgrad.supervised.tasks import TaskSpec

Made = TypeVar("Made")

_NOTHING = 1e-30
"""What a rank without a measured pixel counts: where no rank has one, the task is still there, with loss zero."""


class RankBatches(Sampler[list[int]]):
    """This rank's part of the batches of one process.

    A rank without a part of a shared batch takes its first image, which then counts as no row, see `Replica.rows`.

    Args:
        order: of the images.
        batch_size: of one process.
        drop_last: whether the last batch is left out if it is smaller.
        shared: whether every rank takes every R-th image of each batch, or whole batches in turn.
        rank: of this process.
        size: number of ranks R.
    """

    def __init__(
        self, order: Iterable[int], batch_size: int, drop_last: bool, shared: bool, rank: int, size: int
    ) -> None:
        self.batches = BatchSampler(order, batch_size, drop_last)
        self.shared, self.rank, self.size = shared, rank, size

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shared:
            return islice(self.batches, self.rank, None, self.size)
        return (batch[self.rank :: self.size] or batch[:1] for batch in self.batches)


class Replica:
    """This process as one of R that train together; R is 1 without a group.

    Args:
        group: the process group, or None.

    Raises:
        ArgumentError: if several ranks run and no group was given.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self._ranks = None if group is None else Ranks(group)
        if group is None:
            check_alone("MultiTaskTrainer")

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        return 0 if self._ranks is None else self._ranks.rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return 1 if self._ranks is None else self._ranks.size

    def check_batches(self, tasks: Sequence[TaskSpec], batch_size: int) -> None:
        """Refuse batches too small to be shared.

        Raises:
            ArgumentError: if a rank would get no image, or a single one where batch norm needs two.
        """
        least = 2 if all(not task.record.dense for task in tasks) else 1
        if self.size > 1 and batch_size < least * self.size:
            raise ArgumentError(
                f"batch_size must be at least {least * self.size} with {self.size} ranks, which share each batch, "
                f"got {batch_size}"
            )

    def batches(self, order: Iterable[int], batch_size: int, *, shared: bool, drop_last: bool) -> RankBatches:
        """The batches of this rank; arguments as for `RankBatches`."""
        return RankBatches(order, batch_size, drop_last, shared, self.rank, self.size)

    def rows(
        self, tasks: Sequence[TaskSpec], targets: Mapping[str, Tensor], protocol: Protocol, whole: int | None
    ) -> list[float] | None:
        """How many measured images or pixels of each task this rank has; None where there is one rank only.

        Args:
            tasks: K of them.
            targets: of this rank, by task.
            protocol: which pixels count.
            whole: images of the batch with those of all ranks, or None.
        """
        if self._ranks is None:
            return None
        if whole is not None and whole <= self.rank:
            return [0.0] * len(tasks)
        counts = torch.stack([task.record.measured(targets[task.name], protocol).sum() for task in tasks]).tolist()
        return [float(count) or _NOTHING for count in counts]

    def known_images(
        self, tasks: Sequence[TaskSpec], targets: Mapping[str, Tensor], protocol: Protocol, whole: int
    ) -> dict[str, Tensor]:
        """By task, the images of the batch, those of all ranks, that have something measured.

        Args:
            tasks: of the run.
            targets: of this rank, of some tasks or all.
            protocol: which pixels count.
            whole: images of the batch with those of all ranks.
        """
        present = [task for task in tasks if task.name in targets]
        counts = torch.stack([known_images(task, targets[task.name], protocol) for task in present])
        if self._ranks is not None:
            counts = self._ranks.total(counts * (whole > self.rank))
        return dict(zip((task.name for task in present), counts.unbind(), strict=True))

    def mean(self, losses: Tensor, rows: list[float] | None) -> Tensor:
        """``[K]`` losses of the whole batch."""
        return losses if self.group is None else mean_losses(losses, None, self.group, rows, "MultiTaskTrainer")[0]

    def gramian(
        self, losses: Sequence[Tensor], inputs: Sequence[Tensor], by_features: bool, rows: list[float], scale: float
    ) -> Tensor:
        """Inner products of the task gradients of the whole batch, leaving the graph; see `probe_gramian`.

        Args:
            losses: K scalars of this rank.
            inputs: shared parameters, or features.
            by_features: which of them.
            rows: K numbers of rows.
            scale: the losses are multiplied by it for the backward.
        """
        assert self._ranks is not None, "probed alone otherwise"
        counts = torch.tensor(rows, dtype=torch.float64)
        shares = counts / self._ranks.total(counts)
        # Where an image only stands in for a part, its loss may be NaN.
        parts = [loss * share if share else loss.detach() for loss, share in zip(losses, shares.tolist(), strict=True)]
        return probe_gramian(parts, inputs, scale, Exchange(self._ranks, inputs, by_features))

    def merge(self, metrics: MetricSet, totals: Tensor) -> Tensor:
        """Add what all ranks have measured; returns the sums of ``totals``."""
        ranks = self._ranks
        if ranks is None:
            return totals
        for metric in metrics.metrics.values():
            metric.sum_over(lambda value: ranks.total(value.to(totals.device)))
        return ranks.total(totals)

    def share_buffers(self, model: nn.Module) -> None:
        """Take rank 0's buffers: running statistics are those of its part of the batches."""
        if self._ranks is None:
            return
        for buffer in model.buffers():
            buffer.copy_(self._ranks.gathered(buffer)[0])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The others enter when the first rank has left."""
        if self.rank > 0:
            self._meet()
        try:
            yield
        finally:  # an error of the first is not to leave the others waiting
            if self.rank == 0:
                self._meet()

    def of_first(self, make: Callable[[], Made]) -> Made:
        """The value of ``make`` on the first rank.

        Raises:
            ArgumentError: what it raises there, on every rank.
        """
        if self._ranks is None:
            return make()
        message: list[Any] = [None]
        if self.rank == 0:
            try:
                message = [make()]
            except ArgumentError as error:
                message = [error]
        dist.broadcast_object_list(message, src=dist.get_global_rank(self.group, 0), group=self.group)
        if isinstance(message[0], ArgumentError):
            raise message[0]
        made: Made = message[0]
        return made

    def _meet(self) -> None:
        """Go on when all ranks are here."""
        if self._ranks is not None:
            self._ranks.total(torch.zeros(1))
