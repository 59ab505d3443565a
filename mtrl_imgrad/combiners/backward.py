"""From K losses to ``.grad``: what `Combiner.backward` does, for any model and any optimizer.

Three ways lead to the gradient of the shared parameters; the combiner's needs and the caller's wish decide:

* **by weights**: the combiner knows its weights from the losses (or from an earlier step): one backward of the weighted
  sum;
* **by losses**: one backward a task over one graph, which is freed at the last; rows go straight into the Jacobian's
  blocks. A method that samples its tasks gets the mean losses of a few groups differentiated in place of all K;
* **by features**: K backwards through the heads down to a shared representation, gradients are combined there, and one
  backward takes the result through the trunk. Sener and Koltun (NeurIPS 2018, arXiv 1810.04650) do so for MGDA
  (MGDA-UB). It is another method than combining at the parameters: the Gramian is that of the representation.

In reinforcement learning, where every task owns its rows of the batch, `mtrl_imgrad.gradients` beats all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners.arguments import check_choice, check_number
from mtrl_imgrad.combiners.layout import laid_out_as
from mtrl_imgrad.combiners.memory.tables import TaskIds, check_task_ids, index_of
from mtrl_imgrad.combiners.non_finite import (
    OnNonFinite,
    check_on_nonfinite,
    finite_rows,
    no_step,
    with_absent_tasks,
)
from mtrl_imgrad.combiners.outcome import Combination, Status, Weights
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

__all__ = ["Heads", "Pending", "backward"]

Heads = Literal["unweighted", "weighted"]
Found = Sequence[Tensor | None]
"""A gradient for each parameter; None for one that was not used."""


@dataclass(frozen=True)
class _Losses:
    """The losses of the tasks that are present in this step."""

    parts: list[Tensor]
    tasks: list[int] | None
    scale: Tensor | None

    @property
    def values(self) -> Tensor:
        """``[K]``, detached and not scaled."""
        return torch.stack([part.detach() for part in self.parts])

    @property
    def ids(self) -> Sequence[int]:
        """Whose losses they are."""
        return range(len(self.parts)) if self.tasks is None else self.tasks

    def some(self, rows: Sequence[int]) -> _Losses:
        """Those of a few rows."""
        return _Losses([self.parts[row] for row in rows], [self.ids[row] for row in rows], self.scale)

    def weighted(self, weights: Tensor) -> Tensor:
        """Scaled sum of the losses times ``weights`` [K]."""
        weights = weights.detach().to(self.parts[0].dtype)
        total = torch.stack([part * weight for part, weight in zip(self.parts, weights, strict=True)]).sum()
        return self.scaled(total)

    def scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scale is None else loss * self.scale.to(loss.dtype)


@dataclass
class Pending:
    """The task gradients of a step, or of its micro-batches so far."""

    tasks: list[int] | None
    num_rows: int
    losses: Tensor | float = 0.0
    blocks: list[Tensor | None] = field(default_factory=list)
    """``[K, *shape]`` for each parameter (or feature)."""
    heads: list[dict[int, Tensor]] = field(default_factory=list)
    """For each of the tasks' own parameters the gradients by row."""

    def add(self, row: int, trunk: Found, own: Found) -> None:
        """Add the gradients of one row."""
        self.blocks = self.blocks or [None] * len(trunk)
        self.heads = self.heads or [{} for _ in own]
        for i, gradient in enumerate(trunk):
            if gradient is None:
                continue
            block = self.blocks[i]
            if block is None:
                block = self.blocks[i] = gradient.new_zeros(self.num_rows, *gradient.shape)
            block[row] += gradient
        for rows, gradient in zip(self.heads, own, strict=True):
            if gradient is not None:
                rows[row] = rows[row] + gradient if row in rows else gradient

    def finite(self) -> list[bool]:
        """For each row whether its loss and all of its gradients are finite. Waits for the device once."""
        assert isinstance(self.losses, Tensor), "a step has at least one loss"
        finite = finite_rows([block for block in self.blocks if block is not None], self.losses)
        heads = [(row, gradient) for rows in self.heads for row, gradient in rows.items()]
        if heads:
            largest = torch.stack(torch._foreach_norm([gradient for _, gradient in heads], ord=float("inf")))
            index = index_of((row for row, _ in heads), finite.device)
            lost = (~torch.isfinite(largest)).to(finite.device, torch.int64)
            finite = finite & (torch.zeros_like(finite, dtype=torch.int64).index_add(0, index, lost) == 0)
        return finite.tolist()

    def some(self, rows: Sequence[int], tasks: list[int]) -> Pending:
        """The gradients of a few rows; ``tasks`` says whose these are."""
        assert isinstance(self.losses, Tensor), "a step has at least one loss"
        index = index_of(rows, self.losses.device)
        blocks = [None if block is None else block[index] for block in self.blocks]
        heads = [{new: found[old] for new, old in enumerate(rows) if old in found} for found in self.heads]
        return Pending(tasks, len(rows), self.losses[index], blocks, heads)


def backward(
    combiner: Combiner,
    losses: Tensor | Sequence[Tensor],
    shared: Iterable[Tensor],
    task_specific: Iterable[Tensor] = (),
    *,
    features: Tensor | Sequence[Tensor] | None = None,
    heads: Heads = "unweighted",
    max_grad_norm: float | None = None,
    tasks: TaskIds | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    combine: bool = True,
    on_nonfinite: OnNonFinite = "raise",
) -> Combination | None:
    """Differentiate K losses and add the combined gradient to ``.grad``; see `Combiner.backward` for the arguments.

    Rows of tasks that do not use a parameter are zero there; a parameter that no task uses keeps its ``.grad``. With
    micro-batches (``combine=False``) the task gradients add up, as do the losses, so divide each loss by the number of
    micro-batches. Combining is not linear: this is not the sum of the micro-batches' combined gradients.
    """
    check_choice("heads", heads, get_args(Heads))
    if max_grad_norm is not None:
        max_grad_norm = check_number("max_grad_norm", max_grad_norm, 0, closed=False)
    check_on_nonfinite(on_nonfinite, combiner)
    if grad_scaler is not None and on_nonfinite != "raise":
        raise ArgumentError(f"on_nonfinite={on_nonfinite!r} does not go with a grad_scaler, which skips steps itself")
    trunk, own = _parameters("shared", shared), _parameters("task_specific", task_specific)
    if not trunk:
        raise ArgumentError("shared must hold at least one parameter that requires a gradient")
    if {id(parameter) for parameter in trunk} & {id(parameter) for parameter in own}:
        raise ArgumentError("task_specific must not hold a parameter that shared holds, too")
    present = _present(losses, tasks, grad_scaler)
    taps = _taps(features)
    check_finite = grad_scaler is None
    step = _Step(combiner, present, trunk, own, taps, heads, max_grad_norm, check_finite, on_nonfinite)
    if taps and not (combine and combiner._pending is None):
        raise ArgumentError("combine=False does not go with features: another micro-batch has other ones")
    if not combine or combiner._pending is not None:
        return step.add_micro_batch(last=combine)
    return step.make()


@dataclass(frozen=True)
class _Step:
    combiner: Combiner
    losses: _Losses
    trunk: list[Tensor]
    own: list[Tensor]
    taps: list[Tensor]
    heads: Heads
    max_grad_norm: float | None
    check_finite: bool
    on_nonfinite: OnNonFinite

    def make(self) -> Combination:
        """In the way that the combiner asks for, and without the tasks whose losses may be left out and are."""
        if self.on_nonfinite != "raise":
            finite = torch.isfinite(self.losses.values).tolist()
            if not all(finite):
                return self._of_some(finite, lambda step, _: step.make())
        if not self.combiner.needs_jacobian(self.losses.ids):
            return self.by_weights()
        if self.taps or not self.combiner.samples:
            return self.by_losses()
        before = self.combiner.state_dict()  # groups are drawn before the gradients are known
        groups = self.combiner.draw_groups(len(self.losses.parts))
        return self.by_losses() if groups is None else self.by_groups(groups, before)

    def _of_some(self, finite: Sequence[bool], make: Callable[[_Step, list[int]], Combination]) -> Combination:
        """Leave tasks out, or the whole step, as ``on_nonfinite`` says.

        Args:
            finite: for each row whether all is well with it; not all are.
            make: what makes the step of the rows left, given as a step of its own and by number.
        """
        ids = self.losses.ids
        present = [row for row, well in enumerate(finite) if well]
        if self.on_nonfinite == "skip" or not present:
            lost = [task for task, well in zip(ids, finite, strict=True) if not well]
            return no_step(self.losses.values, lost)
        found = make(replace(self, losses=self.losses.some(present)), present)
        return with_absent_tasks(found, present, ids)

    def by_weights(self) -> Combination:
        """One backward of the weighted sum, and one down to the tasks' own parameters where these are not weighted.

        Weights that are all the same, as those of linear scalarization, need no second one: dividing by them does.
        """
        self._check_losses()
        before = self.combiner.state_dict()
        found = self.combiner.weights_of_losses(self.losses.values, self.losses.tasks)
        self._check_status(found, self.losses.values)
        unweighted = self.heads == "unweighted" and bool(self.own)
        first = found.values[0]
        uniform = unweighted and bool((found.values == first).all() & (first != 0))
        plain = unweighted and not uniform
        inputs = self.trunk if plain else self.trunk + self.own
        gradients = torch.autograd.grad(
            self.losses.weighted(found.values), inputs, retain_graph=plain, allow_unused=True
        )
        trunk: list[Tensor | None] = list(gradients[: len(self.trunk)])
        own: list[Tensor | None] = list(gradients[len(self.trunk) :])
        if plain:
            own = self._head_gradients(torch.ones_like(found.values))
        elif uniform:
            own = [None if gradient is None else gradient / first.to(gradient.dtype) for gradient in own]
        if not self._is_finite(trunk + own):
            self.combiner.load_state_dict(before)
            return self._without_culprit("the weighted losses")
        self._write(trunk, own)
        zeros = (torch.zeros_like(parameter) for parameter in self.trunk)
        return Combination(
            gradient=[zero if g is None else self._unscaled(g) for g, zero in zip(trunk, zeros, strict=True)],
            weights=found.values,
            residual=found.residual,
            status_code=found.status_code,
            extras=found.extras,
        )

    def by_losses(self) -> Combination:
        """A backward a task, down to the parameters or to the features."""
        return self._combine(self._differentiate(Pending(self.losses.tasks, len(self.losses.parts))))

    def by_groups(self, groups: Tensor, before: dict[str, Any]) -> Combination:
        """A backward a group of tasks, and one through the heads alone; ``before`` is the state to go back to."""
        self._check_losses()
        means = [self._group_loss(row) for row in groups]
        pending = Pending(None, len(means))
        for row, mean in enumerate(means):
            keep = row < len(means) - 1 or bool(self.own)
            pending.add(row, torch.autograd.grad(mean, self.trunk, retain_graph=keep, allow_unused=True), [])
        blocks = self._unscaled_blocks(pending)
        if not self._is_finite(blocks):
            self.combiner.load_state_dict(before)
            return self._without_culprit("a group's mean loss")
        combination = self.combiner.combine_groups(self._used(blocks), groups, self.losses.values, self.losses.tasks)
        weights = self._head_weights(combination)
        own = self._head_gradients(weights) if self.own else []
        if not self._is_finite(own):
            self.combiner.load_state_dict(before)
            return self._without_culprit("a task's own parameters")
        self._write(self._scaled(self._spread(combination, blocks)), own)
        return combination

    def add_micro_batch(self, last: bool) -> Combination | None:
        """Gather the task gradients of a micro-batch; combine the sum after the last."""
        pending = self.combiner._pending
        if pending is None:
            pending = Pending(self.losses.tasks, len(self.losses.parts))
        elif pending.tasks != self.losses.tasks or pending.num_rows != len(self.losses.parts):
            raise ArgumentError(
                "the micro-batches of a step must be of the same tasks, got "
                f"{pending.tasks or pending.num_rows} and then {self.losses.tasks or len(self.losses.parts)}"
            )
        self._differentiate(pending)
        self.combiner._pending = None if last else pending
        return self._combine(pending) if last else None

    def _differentiate(self, pending: Pending) -> Pending:
        inputs = (self.taps or self.trunk) + self.own
        split = len(inputs) - len(self.own)
        count = len(self.losses.parts)
        for row, loss in enumerate(self.losses.parts):
            # Down to features only the heads are freed: the trunk's graph is not visited, and stays.
            found = torch.autograd.grad(
                self.losses.scaled(loss), inputs, retain_graph=row < count - 1, allow_unused=True
            )
            pending.add(row, found[:split], found[split:])
        pending.losses = pending.losses + self.losses.values
        return pending

    def _combine(self, pending: Pending) -> Combination:
        if self.on_nonfinite != "raise":
            finite = pending.finite()
            if not all(finite):
                return self._of_some(
                    finite, lambda step, rows: step._combine(pending.some(rows, list(step.losses.ids)))
                )
        blocks = self._unscaled_blocks(pending)
        self._check_losses()
        self._check_blocks(blocks)
        self._check_heads(pending)
        assert isinstance(pending.losses, Tensor), "a step has at least one loss"
        combination = self.combiner.combine(self._used(blocks), pending.losses, pending.tasks)
        self._check_status(combination, pending.losses)
        weights = self._head_weights(combination)
        gradients = self._scaled(self._spread(combination, blocks))
        if self.taps:
            pairs = [(tap, g) for tap, g in zip(self.taps, gradients, strict=True) if g is not None]
            gradients = list(
                torch.autograd.grad([tap for tap, _ in pairs], self.trunk, [g for _, g in pairs], allow_unused=True)
            )
        own = [
            sum((weights[row].to(g.dtype) * g for row, g in rows.items()), start=torch.zeros_like(parameter))
            if rows
            else None
            for rows, parameter in zip(pending.heads, self.own, strict=True)
        ]
        self._write(gradients, own)
        return combination

    def _used(self, blocks: Found) -> list[Tensor]:
        """The blocks to combine.

        A method that remembers every entry tells blocks apart by their place, so an unused one must not be left out.
        """
        used = [block for block in blocks if block is not None]
        if not used:
            raise ArgumentError(f"no loss depends on any {'features' if self.taps else 'parameter of shared'}")
        if self.combiner.needs != "matrix":
            return used
        count = len(used[0])
        inputs = self.taps or self.trunk
        return [
            one.new_zeros(count, *one.shape) if block is None else block
            for one, block in zip(inputs, blocks, strict=True)
        ]

    def _head_weights(self, combination: Combination) -> Tensor:
        """``[K]``: what a task's own parameters multiply its gradient with."""
        if self.heads == "unweighted":
            return torch.ones(len(self.losses.parts), device=self.losses.parts[0].device)
        if combination.weights is None:
            raise ArgumentError(f"heads='weighted' does not go with {self.combiner.name}, which weighs no tasks")
        return combination.weights

    def _head_gradients(self, weights: Tensor) -> list[Tensor | None]:
        return list(torch.autograd.grad(self.losses.weighted(weights), self.own, allow_unused=True))

    def _group_loss(self, weights: Tensor) -> Tensor:
        members = [(self.losses.parts[i], float(weights[i])) for i in weights.nonzero()[:, 0].tolist()]
        return self.losses.scaled(torch.stack([loss * weight for loss, weight in members]).sum())

    def _spread(self, combination: Combination, blocks: Found) -> list[Tensor | None]:
        """The combined gradient with None for the blocks that no task used."""
        found = list(combination.gradient)
        if len(found) == len(blocks):
            return [None if block is None else part for block, part in zip(blocks, found, strict=True)]
        parts = iter(found)
        return [None if block is None else next(parts) for block in blocks]

    def _unscaled(self, gradient: Tensor) -> Tensor:
        return gradient if self.losses.scale is None else gradient / self.losses.scale.to(gradient.dtype)

    def _unscaled_blocks(self, pending: Pending) -> list[Tensor | None]:
        return [None if block is None else self._unscaled(block) for block in pending.blocks]

    def _scaled(self, gradients: Found) -> list[Tensor | None]:
        return [None if gradient is None else self.losses.scaled(gradient) for gradient in gradients]

    def _write(self, trunk: Found, own: Found) -> None:
        """Add the gradients to ``.grad``, those of the shared parameters shortened to ``max_grad_norm``."""
        used = [gradient for gradient in trunk if gradient is not None]
        factor: Tensor | None = None
        if self.max_grad_norm is not None and used:
            length = self._unscaled(nn.utils.get_total_norm(used))
            factor = torch.where(length > self.max_grad_norm, self.max_grad_norm / length, 1.0)
        for parameter, gradient in zip(self.trunk, trunk, strict=True):
            _accumulate(parameter, gradient if gradient is None or factor is None else gradient * factor)
        for parameter, gradient in zip(self.own, own, strict=True):
            _accumulate(parameter, gradient)

    # Each of these waits for the device once; with a GradScaler, which has its own way, none is called.

    def _check_losses(self) -> None:
        if not self.check_finite:
            return
        finite = torch.isfinite(self.losses.values)
        if not bool(finite.all()):
            raise NonFiniteError(f"the loss of task {self._task(int((~finite).nonzero()[0, 0]))} is NaN or infinite")

    def _check_status(self, found: Weights | Combination, losses: Tensor) -> None:
        """Methods that need more than the losses can weigh any; they are spared the wait."""
        if self.check_finite and self.combiner.needs == "losses" and found.status == Status.NOT_POSITIVE:
            values = ", ".join(f"{loss:.6g}" for loss in losses.tolist())
            raise ArgumentError(f"{self.combiner.name} cannot weigh the losses {values}. {found.status.sentence}")

    def _check_blocks(self, blocks: Found) -> None:
        if self._is_finite(blocks):
            return
        for i, block in enumerate(blocks):
            bad = torch.zeros(()) if block is None else (~torch.isfinite(block.flatten(1))).any(1)
            if bool(bad.any()):
                what = "features" if self.taps else "shared"
                row = int(bad.nonzero()[0, 0])
                raise NonFiniteError(f"the gradient of task {self._task(row)} is NaN or infinite in {what}[{i}]")

    def _check_heads(self, pending: Pending) -> None:
        if not self.check_finite or self._is_finite([g for rows in pending.heads for g in rows.values()]):
            return
        for i, rows in enumerate(pending.heads):
            for row, gradient in rows.items():
                if not bool(torch.isfinite(gradient).all()):
                    raise NonFiniteError(
                        f"the gradient of task {self._task(row)} is NaN or infinite in task_specific[{i}]"
                    )

    def _is_finite(self, gradients: Found) -> bool:
        used = [gradient for gradient in gradients if gradient is not None]
        return not (self.check_finite and used) or bool(torch.isfinite(nn.utils.get_total_norm(used)))

    def _without_culprit(self, of: str) -> Combination:
        """The gradient of several tasks together is not finite: nobody can say whose it was."""
        if self.on_nonfinite == "raise":
            raise NonFiniteError(f"the gradient of {of} is NaN or infinite, though the losses are not")
        return no_step(self.losses.values, ())

    def _task(self, row: int) -> int:
        return row if self.losses.tasks is None else self.losses.tasks[row]


def _parameters(name: str, given: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that ask for a gradient."""
    if isinstance(given, Tensor) or not isinstance(given, Iterable):
        raise ArgumentError(f"{name} must be an iterable of parameters, got {type(given).__name__}")
    found = list(given)
    for parameter in found:
        if not isinstance(parameter, Tensor) or not parameter.is_leaf:
            raise ArgumentError(f"{name} must hold parameters (leaf tensors), got {type(parameter).__name__}")
    if len({id(parameter) for parameter in found}) != len(found):
        raise ArgumentError(f"{name} must not hold a parameter twice")
    return [parameter for parameter in found if parameter.requires_grad]


def _present(losses: Tensor | Sequence[Tensor], tasks: TaskIds | None, scaler: torch.amp.GradScaler | None) -> _Losses:
    """The losses that have a graph, and whose they are."""
    parts = list(losses.unbind()) if isinstance(losses, Tensor) and losses.ndim == 1 else losses
    scalars = not isinstance(parts, Tensor) and all(isinstance(loss, Tensor) and loss.numel() == 1 for loss in parts)
    if not scalars or not len(parts):
        raise ArgumentError("losses must be K scalar tensors, or one tensor [K]")
    check_task_ids(tasks, len(parts))
    ids = list(range(len(parts))) if tasks is None else list(tasks)
    present = [(task, loss.reshape(())) for task, loss in zip(ids, parts, strict=True) if loss.requires_grad]
    if not present:
        raise ArgumentError("losses must hold at least one loss with a graph: none requires a gradient")
    complete = tasks is None and len(present) == len(parts)
    scale = None
    if scaler is not None:
        scale = scaler.scale(torch.ones((), device=present[0][1].device))
    return _Losses([loss for _, loss in present], None if complete else [task for task, _ in present], scale)


def _taps(features: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    taps = [] if features is None else [features] if isinstance(features, Tensor) else list(features)
    for tap in taps:
        if not isinstance(tap, Tensor) or not tap.requires_grad or tap.is_leaf:
            raise ArgumentError("features must be tensors that were computed from the shared parameters")
    return taps


def _accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    if gradient is not None:
        gradient = laid_out_as(parameter, gradient.detach())
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
