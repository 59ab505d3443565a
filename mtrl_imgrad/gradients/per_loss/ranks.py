"""The losses and lists of one rank, as its part of the step that the ranks of a group make together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.replicas.agreement import (
    agree_on_call,
    agree_on_start,
    check_rows,
    gather_tasks,
    say_error,
)
from mtrl_imgrad.combiners.replicas.exchange import Exchange
from mtrl_imgrad.combiners.replicas.ranks import Ranks, check_alone, check_parameters
from mtrl_imgrad.combiners.state.tables import TaskIds, check_task_ids
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Losses, Options, read_losses

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner


class LocalLosses:
    """The losses that a rank brings.

    Args:
        present: those of tasks that it has rows of.
        rows: how many of each.
        count: how many losses were given, absent ones included; 0 where ``tasks`` said whose they are.
    """

    def __init__(self, present: Losses, rows: list[float], count: int) -> None:
        self.present, self.rows, self.count = present, rows, count


def ranks_of(group: Any, rows: Any, call: str) -> Ranks | None:
    """The ranks of a group; None for a process of its own."""
    if group is not None:
        return Ranks(group)
    check_alone(call)
    if rows is not None:
        raise ArgumentError("rows goes with group: a process of its own has all rows")
    return None


@contextmanager
def errors_told(ranks: Ranks | None) -> Iterator[None]:
    """Whatever is raised inside is told to the ranks that wait for this one."""
    try:
        yield
    except Exception:
        if ranks is not None:
            say_error(ranks)
        raise


def read_local_losses(
    losses: Tensor | Sequence[Tensor | None],
    tasks: TaskIds | None,
    rows: Sequence[float] | Tensor | None,
    device: torch.device,
    may_lack: bool,
) -> LocalLosses:
    """The losses of one process; of one rank among several ``may_lack`` all of them."""
    parts = list(losses.unbind()) if isinstance(losses, Tensor) and losses.ndim == 1 else losses
    if may_lack and isinstance(parts, Sequence) and parts:
        counts = check_rows(rows, [part is not None for part in parts])
        kept = [part if count else None for part, count in zip(parts, counts, strict=True)]
        total = len(parts) if tasks is None else 0
        if all(part is None for part in kept):
            check_task_ids(tasks, len(parts))
            return LocalLosses(Losses([], [], device), [], total)
        return LocalLosses(read_losses(kept, tasks, device), [count for count in counts if count], total)
    return LocalLosses(read_losses(losses, tasks, device), [], 0)


def join(
    combiner: Combiner, ranks: Ranks, inputs: Inputs, options: Options, local: LocalLosses
) -> tuple[Inputs, Losses]:
    """This rank's part of the step of all: its losses times its shares of the rows."""
    shapes = [[tuple(one.shape) for one in part.tensors] for part in (inputs.shared, inputs.task_specific)]
    call = (
        f"{combiner!r} with {len(shapes[0])} shared and {len(shapes[1])} task_specific parameters of shapes {shapes}, "
        f"{len(inputs.features)} features, heads={options.heads!r}, max_grad_norm={options.max_grad_norm}, "
        f"on_nonfinite={options.on_nonfinite!r}, {'no' if options.scale is None else 'a'} grad_scaler"
    )
    present = local.present
    agreement = agree_on_call(ranks, call, not combiner.ranks_agree, max(present.ids, default=-1), local.count)
    if agreement.first:
        agree_on_start(ranks, [*inputs.shared.tensors, *inputs.task_specific.tensors], combiner.state_dict())
        combiner.ranks_agree = True
    means = torch.zeros(0, device=inputs.device) if not present.parts else present.values
    gathered = gather_tasks(ranks, present.ids, local.rows, means, agreement)
    with torch.enable_grad():
        parts = dict(zip(present.ids, present.parts, strict=True))
        summands = [
            parts[task] * share if task in parts else torch.zeros((), device=inputs.device, requires_grad=True)
            for task, share in zip(gathered.ids, gathered.shares, strict=True)
        ]
    exchange = inputs.exchange or Exchange(ranks, inputs.combined, bool(inputs.features))
    return (
        replace(inputs, exchange=exchange),
        Losses(summands, None if gathered.complete else gathered.ids, inputs.device, gathered.losses),
    )


def check_replicable(inputs: Inputs, combiner: Combiner | None) -> None:
    """Check what does not go with several processes; ``combiner`` is that of a step of theirs."""
    for one in (inputs.shared, inputs.task_specific):
        check_parameters(one.argument, one.tensors)
    if combiner is not None and inputs.features and combiner.needs == "matrix":
        raise ArgumentError(
            f"features does not go with {combiner.name} over a group: it works entry by entry, and the features of "
            "each rank are of other rows"
        )
