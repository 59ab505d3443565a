"""The K gradients of a step: blocks of the shared parameters, rows of the tasks' own.

Complex gradients are stored as pairs of real numbers, whose inner product is Re <g, h>, and sparse ones densely, so
that every method finds real numbers in a dense block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtrl_imgrad.combiners.replicas.slicing import as_real
from mtrl_imgrad.combiners.state.tables import index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.absent_tasks import finite_rows
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Losses, Options

HALF = (torch.float16, torch.bfloat16)

Gradients = Sequence[Tensor | None]
"""A gradient for each of some tensors; None for one that was not used."""


@dataclass(frozen=True)
class TaskGradients:
    """The gradients of K tasks, before the scale of a `GradScaler`.

    Attributes:
        tasks: whose rows they are; None for tasks 0 to K - 1, all of them.
        losses: ``[K]``.
        blocks: ``[K, *shape]`` real for each of the tensors to combine, ``[K, *shape, 2]`` for a complex one; None for
            one that no loss reaches.
        task_specific: for each of the tasks' own parameters the gradients by row.
        sparse: places of the blocks whose gradients were all sparse, and their number of sparse dimensions.
    """

    tasks: list[int] | None
    losses: Tensor
    blocks: list[Tensor | None]
    task_specific: list[dict[int, Tensor]]
    sparse: dict[int, int]

    @property
    def ids(self) -> Sequence[int]:
        """Whose rows they are."""
        return range(len(self.losses)) if self.tasks is None else self.tasks

    def finite(self) -> list[bool]:
        """For each row whether its loss and all of its gradients are finite. Waits for the device once."""
        finite = finite_rows([block for block in self.blocks if block is not None], self.losses)
        task_specific = [(row, gradient) for rows in self.task_specific for row, gradient in rows.items()]
        if task_specific:
            # Parameters of a task's own may have rows of several tasks: count what is not finite by row.
            non_finite = torch.stack([~_all_finite(gradient).to(finite.device) for _, gradient in task_specific]).long()
            index = index_of((row for row, _ in task_specific), finite.device)
            finite = finite & (torch.zeros_like(finite, dtype=torch.int64).index_add(0, index, non_finite) == 0)
        return finite.tolist()

    def some(self, rows: Sequence[int]) -> TaskGradients:
        """The gradients of a few rows."""
        index = index_of(rows, self.losses.device)
        return TaskGradients(
            tasks=[self.ids[row] for row in rows],
            losses=self.losses[index],
            blocks=[None if block is None else block[index] for block in self.blocks],
            task_specific=[{new: own[old] for new, old in enumerate(rows) if old in own} for own in self.task_specific],
            sparse=self.sparse,
        )


@dataclass
class Gathering:
    """Gradients by task id, as they come: of one batch, or of several micro-batches."""

    losses: dict[int, Tensor] = field(default_factory=dict)
    combined: dict[int, list[Tensor | None]] = field(default_factory=dict)
    task_specific: list[dict[int, Tensor]] = field(default_factory=list)
    complete: bool = True
    """Whether all micro-batches were of the same tasks 0 to K - 1."""
    _sparse: dict[int, int] = field(default_factory=dict)
    _dense: set[int] = field(default_factory=set)

    def add(self, task: int, loss: Tensor, combined: Gradients, task_specific: Gradients) -> None:
        """Add the loss and the gradients of a task."""
        self.losses[task] = self.losses[task] + loss if task in self.losses else loss
        for i, gradient in enumerate(combined):
            if gradient is not None and gradient.is_sparse:
                self._sparse[i] = gradient.sparse_dim()
            elif gradient is not None:
                self._dense.add(i)
        real = [None if gradient is None else as_real(gradient) for gradient in combined]
        before = self.combined.get(task)
        self.combined[task] = real if before is None else [add(*pair) for pair in zip(before, real, strict=True)]
        self.task_specific.extend({} for _ in range(len(task_specific) - len(self.task_specific)))
        for rows, gradient in zip(self.task_specific, task_specific, strict=True):
            total = add(rows.get(task), gradient)
            if total is not None:
                rows[task] = total

    def finish(self) -> TaskGradients:
        """The gradients gathered, in the order of the task ids unless one batch gave another; empties this."""
        ids = list(self.losses)
        rows = {task: row for row, task in enumerate(ids)}
        blocks = [self._block(i) for i in range(len(self.combined[ids[0]]))]
        return TaskGradients(
            tasks=None if self.complete and ids == list(range(len(ids))) else ids,
            losses=torch.stack([self.losses[task] for task in ids]),
            blocks=blocks,
            task_specific=[{rows[task]: gradient for task, gradient in own.items()} for own in self.task_specific],
            sparse={i: dims for i, dims in self._sparse.items() if i not in self._dense},
        )

    def sort(self) -> None:
        """Put the tasks in the order of their ids."""
        self.losses = dict(sorted(self.losses.items()))

    def _block(self, i: int) -> Tensor | None:
        """``[K, *shape]``. Rows are let go of, so that the Jacobian is not there twice."""
        rows = []
        for task in self.losses:
            rows.append(self.combined[task][i])
            self.combined[task][i] = None
        some = next((row for row in rows if row is not None), None)
        if some is None:
            return None
        return torch.stack([torch.zeros_like(some) if row is None else row for row in rows])


def differentiate(losses: Losses, inputs: Inputs, options: Options, into: Gathering) -> None:
    """Add the gradients of each loss to ``into``: a backward a task, down to the parameters or to the features."""
    tensors = inputs.combined + inputs.task_specific.tensors
    split = len(inputs.combined)
    values = losses.values
    for row, (task, loss) in enumerate(zip(losses.ids, losses.parts, strict=True)):
        # Down to features only the heads are freed: the trunk's graph is not visited, and stays.
        retain = options.retain_graph or row < len(losses.parts) - 1
        gradients = [unscaled(g, options) for g in gradients_of([loss], tensors, None, options, retain)]
        combined = gradients[:split] if inputs.exchange is None else inputs.exchange.row(gradients[:split])
        into.add(task, values[row], combined, gradients[split:])
    into.complete &= losses.tasks is None


def gradients_of(
    losses: Sequence[Tensor], tensors: Sequence[Tensor], weights: Tensor | None, options: Options, retain_graph: bool
) -> Gradients:
    """Gradients of the sum of ``losses``, times ``weights`` [K] and the scale; None for a tensor that is not used.

    Weights go in as gradients of the losses: no graph is needed around them, so this works under ``no_grad`` too.
    """
    factors = []
    for i, loss in enumerate(losses):
        factor = torch.ones_like(loss) if weights is None else weights[i].to(loss)
        factors.append(factor if options.scale is None else (factor * options.scale.to(loss.device)).to(loss.dtype))
    try:
        return torch.autograd.grad(losses, tensors, factors, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if "donated buffers" not in str(error):
            raise
        raise ArgumentError(
            "a module compiled with torch.compile gives its buffers away at its first backward, but one a task is "
            "needed: set torch._functorch.config.donated_buffer = False before it is first called"
        ) from error


def unscaled(gradient: Tensor | None, options: Options) -> Tensor | None:
    """A gradient without the scale; in float32 where half precision might not hold it."""
    if gradient is None or options.scale is None:
        return gradient
    if gradient.dtype in HALF:
        gradient = gradient.float()
    return gradient / options.scale.to(gradient.device, gradient.dtype.to_real())


def add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of what is there; sparse with sparse is sparse."""
    if a is None or b is None:
        return b if a is None else a
    return b + a if a.is_sparse and not b.is_sparse else a + b


def is_finite(gradients: Gradients) -> bool:
    """Whether all entries are finite; waits for the device once a device.

    The largest entry tells: a sum of squares could overflow.
    """
    values = [_values(gradient) for gradient in gradients if gradient is not None]
    values = [value for value in values if value.numel()]
    if not values:
        return True
    largest = torch._foreach_norm(values, ord=float("inf"))
    return all(bool(torch.isfinite(torch.stack(some)).all()) for some in _by_device(largest))


def _all_finite(gradient: Tensor) -> Tensor:
    return torch.isfinite(_values(gradient)).all()


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _by_device(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return list(groups.values())
