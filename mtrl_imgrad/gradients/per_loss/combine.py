"""From K gradients to ``.grad``: leave out what is not finite, combine, take the result through the trunk, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import rows_of
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.weights import Status, Weights
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients.absent_tasks import combine_finite, no_step
from mtrl_imgrad.gradients.heads import head_weights
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Options
from mtrl_imgrad.gradients.per_loss.task_gradients import Gradients, TaskGradients, add, is_finite
from mtrl_imgrad.gradients.per_loss.write import write_gradients

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner


def combine(combiner: Combiner, inputs: Inputs, options: Options, gradients: TaskGradients) -> Combination:
    """Combine the gradients of K tasks and add the result to ``.grad``."""
    if options.on_nonfinite != "raise":
        finite = _finite(inputs, gradients)
        if not all(finite):
            return combine_finite(
                finite,
                gradients.losses,
                options.on_nonfinite,
                lambda rows: combine(combiner, inputs, options, gradients.some(rows)),
                gradients.ids,
            )
    blocks = used_blocks(combiner, inputs, gradients)
    if options.checks_finite:
        check_losses(gradients.losses, gradients.ids)
        if inputs.exchange is None:
            _check_blocks(inputs, gradients)
            _check_task_specific(inputs, gradients)
        else:
            _check_tasks(_finite(inputs, gradients), gradients)
    combination = combiner.combine(blocks, gradients.losses, gradients.tasks)
    check_status(combiner, options, combination, gradients.losses)
    if options.checks_finite and combination.status == Status.NON_FINITE:  # though all entries are finite
        return _overflown(options, gradients)
    shared = as_parameters(inputs, combination.gradient, gradients)
    task_specific = _task_specific_gradients(
        gradients, head_weights(combiner, options.heads, combination.weights, gradients.losses)
    )
    if inputs.exchange is not None:
        task_specific = inputs.exchange.sum(inputs.task_specific.tensors, task_specific)
    write_gradients(inputs, options, _through_trunk(inputs, options, shared), task_specific)
    return replace(combination, gradient=filled(inputs.combined, shared))


def used_blocks(combiner: Combiner, inputs: Inputs, gradients: TaskGradients) -> list[Tensor]:
    """The blocks to combine.

    A method that remembers every entry tells blocks apart by their place, so an unused one must not be left out.
    """
    if inputs.exchange is not None:
        return inputs.exchange.jacobian(combiner, gradients.blocks, len(gradients.losses))
    used = [block for block in gradients.blocks if block is not None]
    if not used:
        raise ArgumentError(f"no loss depends on any {'features' if inputs.features else 'parameter of shared'}")
    if combiner.needs != "matrix":
        return used
    count = len(gradients.losses)
    return [
        torch.view_as_real(one.new_zeros(count, *one.shape)) if one.is_complex() and block is None
        else one.new_zeros(count, *one.shape) if block is None
        else block
        for one, block in zip(inputs.combined, gradients.blocks, strict=True)
    ]  # fmt: skip


def as_parameters(inputs: Inputs, combined: Tensor | list[Tensor], gradients: TaskGradients) -> list[Tensor | None]:
    """Combined blocks in the form that autograd gives gradients in; None for the blocks that no task used."""
    parts = list(combined)
    if inputs.exchange is not None and not inputs.features:
        return inputs.exchange.joined(parts)
    if len(parts) != len(gradients.blocks):
        rest = iter(parts)
        parts = [block if block is None else next(rest) for block in gradients.blocks]
    shaped: list[Tensor | None] = []
    for i, (one, block, part) in enumerate(zip(inputs.combined, gradients.blocks, parts, strict=True)):
        if block is None:
            shaped.append(None)
            continue
        part = torch.view_as_complex(part.contiguous()) if one.is_complex() else part
        shaped.append(part.to_sparse(gradients.sparse[i]) if i in gradients.sparse else part)
    return shaped


def check_losses(losses: Tensor, tasks: Sequence[int]) -> None:
    """Raise `NonFiniteError` if a loss ``[K]`` is NaN or inf. Waits for the device."""
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        raise NonFiniteError(f"the loss of task {tasks[int((~finite).nonzero()[0, 0])]} is NaN or infinite")


def check_status(combiner: Combiner, options: Options, answer: Weights | Combination, losses: Tensor) -> None:
    """Raise if the method cannot weigh the losses.

    Methods that need more than the losses can weigh any; they are spared the wait.
    """
    if options.checks_finite and combiner.needs == "losses" and answer.status == Status.NOT_POSITIVE:
        values = ", ".join(f"{loss:.6g}" for loss in losses.tolist())
        raise ArgumentError(f"{combiner.name} cannot weigh the losses {values}. {answer.status.sentence}")


def _overflown(options: Options, gradients: TaskGradients) -> Combination:
    if options.on_nonfinite != "raise":
        return no_step(gradients.losses, ())
    raise NonFiniteError(
        "the inner products of the task gradients are NaN or infinite, though the gradients are not: in float32 norms "
        "above 1e19 overflow. Scale the losses, or use float64 parameters"
    )


def _task_specific_gradients(gradients: TaskGradients, weights: Tensor) -> list[Tensor | None]:
    totals = []
    for rows in gradients.task_specific:
        total: Tensor | None = None
        for row, gradient in rows.items():
            total = add(total, gradient * weights[row].to(gradient.device, gradient.dtype.to_real()))
        totals.append(total)
    return totals


def _through_trunk(inputs: Inputs, options: Options, combined: Gradients) -> Gradients:
    """The gradients of the shared parameters, from those of the features."""
    if not inputs.features:
        return combined
    pairs = [(tap, gradient) for tap, gradient in zip(inputs.features, combined, strict=True) if gradient is not None]
    trunk: Gradients = [None] * len(inputs.shared.tensors)
    if pairs:
        trunk = torch.autograd.grad(
            [tap for tap, _ in pairs],
            inputs.shared.tensors,
            [gradient.to(tap.dtype) for tap, gradient in pairs],
            retain_graph=options.retain_graph,
            allow_unused=True,
        )
    return trunk if inputs.exchange is None else inputs.exchange.sum(inputs.shared.tensors, trunk)


def filled(tensors: Sequence[Tensor], gradients: Gradients) -> list[Tensor]:
    """A gradient for each tensor, zero where no task uses it."""
    return [
        torch.zeros_like(one) if gradient is None else gradient
        for one, gradient in zip(tensors, gradients, strict=True)
    ]


def _finite(inputs: Inputs, gradients: TaskGradients) -> list[bool]:
    """For each task whether its loss and all of its gradients are finite, on every rank."""
    finite = gradients.finite()
    return finite if inputs.exchange is None else inputs.exchange.all(finite)


def _check_tasks(finite: Sequence[bool], gradients: TaskGradients) -> None:
    for task, is_finite_there in zip(gradients.ids, finite, strict=True):
        if not is_finite_there:
            raise NonFiniteError(f"the gradient of task {task} is NaN or infinite on some rank")


def _check_blocks(inputs: Inputs, gradients: TaskGradients) -> None:
    if is_finite(gradients.blocks):
        return
    for i, block in enumerate(gradients.blocks):
        if block is None:
            continue
        non_finite = (~torch.isfinite(rows_of(block))).any(1)
        if bool(non_finite.any()):
            task = gradients.ids[int(non_finite.nonzero()[0, 0])]
            raise NonFiniteError(f"the gradient of task {task} is NaN or infinite in {inputs.name(i)}")


def _check_task_specific(inputs: Inputs, gradients: TaskGradients) -> None:
    if is_finite([gradient for rows in gradients.task_specific for gradient in rows.values()]):
        return
    for i, rows in enumerate(gradients.task_specific):
        for row, gradient in rows.items():
            if not is_finite([gradient]):
                task = gradients.ids[row]
                raise NonFiniteError(
                    f"the gradient of task {task} is NaN or infinite in {inputs.task_specific.name(i)}"
                )
