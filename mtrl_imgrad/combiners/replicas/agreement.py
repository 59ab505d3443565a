"""The ranks' exchange before a step: the same call on all, each one's tasks and numbers of rows.

A rank whose arguments are wrong says so here as well, so that the others raise an error in place of waiting for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.replicas.ranks import Ranks, check_alone
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.errors import ArgumentError

_FAILED = -1


@dataclass(frozen=True)
class Agreement:
    """Facts of a step that all ranks know before it.

    Attributes:
        first: whether it is the first for some rank.
        highest: the highest id of a task that some rank has rows of; -1 for none.
        count: how many tasks the ranks' lists have a place for; 0 where they say whose the losses are.
    """

    first: bool
    highest: int
    count: int


@dataclass(frozen=True)
class TaskShares:
    """The tasks of a step, of which some rank has a row.

    Attributes:
        ids: K task ids, in order.
        shares: ``[K]`` the part of a task's rows that this rank has; of sum 1 over the ranks.
        losses: ``[K]`` mean over the rows of all ranks.
        complete: whether they are tasks 0 to K - 1, all that the ranks' lists have a place for.
    """

    ids: list[int]
    shares: list[float]
    losses: Tensor
    complete: bool


def agree_on_call(ranks: Ranks, call: str, first: bool, highest: int, count: int) -> Agreement:
    """Check that all ranks make the same call.

    Args:
        ranks: that meet here.
        call: everything that must be the same.
        first: whether this rank has not made such a call before.
        highest: see `Agreement`, as for the last; of this rank.
        count: of this rank.
    """
    # One all-gather for all four numbers.
    calls = ranks.gathered(torch.tensor([_digest(call), int(first), highest, count], device="cpu"))
    digests = calls[:, 0].tolist()
    if _FAILED in digests:
        raise ArgumentError(
            f"rank {digests.index(_FAILED)} of the group could not make this step; its own error says why"
        )
    different = [rank for rank, digest in enumerate(digests) if digest != digests[ranks.rank]]
    if different:
        raise ArgumentError(
            f"all ranks must make the same step, but rank(s) {different} make another one than rank {ranks.rank}, "
            f"which is {call}"
        )
    _, anywhere, highest, count = calls.amax(0).tolist()
    return Agreement(bool(anywhere), highest, count)


def say_error(ranks: Ranks) -> None:
    """Tell the ranks that wait in `agree_on_call` that this one cannot make the step."""
    ranks.gathered(torch.tensor([_FAILED, 0, 0, 0], device="cpu"))


def agree_on_start(ranks: Ranks, parameters: Iterable[Tensor], state: Mapping[str, Any]) -> None:
    """Check once that the ranks start from the same parameters and the same state of the combiner."""
    weights = _digest([parameter.detach() for parameter in parameters])
    digests = ranks.gathered(torch.tensor([weights, _digest(state)], device="cpu"))
    if bool((digests[:, 0] != digests[0, 0]).any()):
        raise ArgumentError(
            "the ranks' parameters differ before the first step: start all of them from rank 0's, for instance by "
            "torch.distributed.broadcast(parameter.data, src=0) for each of model.parameters()"
        )
    if bool((digests[:, 1] != digests[0, 1]).any()):
        raise ArgumentError(
            "the states of the ranks' combiners differ: load the same state_dict on every rank, and give each the same "
            "seed"
        )


def gather_tasks(
    ranks: Ranks, ids: Sequence[int], rows: Sequence[float], losses: Tensor, agreement: Agreement
) -> TaskShares:
    """Gather who has which tasks.

    Args:
        ranks: that meet here.
        ids: of this rank's tasks.
        rows: how many rows of each this rank has, above 0.
        losses: ``[len(ids)]`` mean over these rows, detached.
        agreement: of `agree_on_call`.
    """
    if agreement.highest < 0:
        raise ArgumentError("losses must hold at least one loss with rows on some rank: all tasks are absent on all")
    index = torch.tensor(ids, dtype=torch.int64, device="cpu")
    counts = torch.zeros(agreement.highest + 1, dtype=torch.float64, device="cpu")
    counts[index] = torch.tensor(rows, dtype=torch.float64, device="cpu")
    means = torch.zeros_like(counts)
    means[index] = losses.detach().double().cpu()
    of_ranks = ranks.gathered(torch.stack([counts, means]))
    totals = of_ranks[:, 0].sum(0)
    shares = of_ranks[:, 0] / totals.clamp_min(torch.finfo(torch.float64).tiny)
    chosen = totals.nonzero()[:, 0]
    return TaskShares(
        ids=chosen.tolist(),
        shares=shares[ranks.rank, chosen].tolist(),
        losses=(shares * of_ranks[:, 1]).sum(0)[chosen].to(losses.device, losses.dtype),
        complete=chosen.tolist() == list(range(agreement.count)),
    )


def mean_losses(
    losses: Tensor, tasks: TaskIds | None, group: Any, rows: Sequence[float] | Tensor | None, call: str
) -> tuple[Tensor, TaskIds | None]:
    """The losses over the rows of all ranks, and whose they are.

    Args:
        losses: ``[K]`` over this rank's rows, detached.
        tasks: K task ids, or None.
        group: of the ranks, or None.
        rows: K numbers of rows, or None.
        call: who asks, for messages.
    """
    if group is None:
        check_alone(call)
        return losses, tasks
    ranks = Ranks(group)
    try:
        counts = check_rows(rows, [True] * len(losses))
    except ArgumentError:
        say_error(ranks)
        raise
    present = [place for place, rows_there in enumerate(counts) if rows_there]
    ids = present if tasks is None else [tasks[place] for place in present]
    agreement = agree_on_call(ranks, call, False, max(ids, default=-1), len(losses) if tasks is None else 0)
    here = losses[torch.tensor(present, dtype=torch.int64, device=losses.device)]
    gathered = gather_tasks(ranks, ids, [counts[place] for place in present], here, agreement)
    return gathered.losses, None if gathered.complete else gathered.ids


def check_rows(rows: Sequence[float] | Tensor | None, present: Sequence[bool]) -> list[float]:
    """The number of rows of each task.

    Args:
        rows: as the caller gave them; None counts every loss as one row.
        present: whether there is a loss.
    """
    if rows is None:
        return [float(there) for there in present]
    counts = rows.tolist() if isinstance(rows, Tensor) else list(rows)
    if not isinstance(counts, list) or len(counts) != len(present):
        raise ArgumentError(f"rows must hold a number for each of {len(present)} losses, got {rows!r}")
    for place, (count, there) in enumerate(zip(counts, present, strict=True)):
        if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 <= count < float("inf"):
            raise ArgumentError(f"rows must be finite numbers >= 0, got {count!r}")
        if count and not there:
            raise ArgumentError(f"rows says {count} rows of the task at place {place}, which has no loss")
    return [float(count) for count in counts]


def _digest(value: Any) -> int:
    """A number that tells values apart, tensors by their bytes."""
    return _extended(value, 0)


def _extended(value: Any, crc: int) -> int:
    if isinstance(value, Tensor):
        crc = zlib.crc32(repr((value.dtype, tuple(value.shape))).encode(), crc)
        flat = value.detach().cpu().contiguous().reshape(-1)
        # By bytes: NaN equals itself, and -0 is not 0.
        return zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), crc) if flat.numel() else crc
    if isinstance(value, Mapping):
        return _extended([*map(str, value), *value.values()], crc)
    if isinstance(value, (list, tuple)):
        for one in value:
            crc = _extended(one, crc)
        return zlib.crc32(b"]", crc)  # [[1], 2] is not [1, [2]]
    return zlib.crc32(repr(value).encode(), crc)
