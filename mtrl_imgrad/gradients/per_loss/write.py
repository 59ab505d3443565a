"""Combined gradients to ``.grad``, by the rules of ``loss.backward()``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Options
from mtrl_imgrad.gradients.per_loss.task_gradients import HALF, Gradients, add


@torch.no_grad()
def write_gradients(inputs: Inputs, options: Options, shared: Gradients, task_specific: Gradients) -> None:
    """Add gradients to ``.grad``, those of the shared parameters shortened to ``max_grad_norm``.

    Post-accumulate hooks of the parameters are called afterwards, as ``loss.backward()`` does.

    Args:
        inputs: the parameters.
        options: of the step.
        shared: a gradient for each shared parameter, without a `GradScaler`'s scale; None leaves ``.grad`` alone.
        task_specific: the same for the tasks' own.
    """
    factor = None if options.max_grad_norm is None else clip_factor(shared, options.max_grad_norm)
    written = [
        *_write(inputs.shared.tensors, shared, options, factor),
        *_write(inputs.task_specific.tensors, task_specific, options, None),
    ]
    for parameter in written:
        for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values():
            hook(parameter)


def clip_factor(gradients: Gradients, max_grad_norm: float) -> Tensor | None:
    """The factor that shortens the gradients to that norm, 1 where they are shorter; None if there are none."""
    norms = [_norm(gradient) for gradient in gradients if gradient is not None]
    if not norms:
        return None
    length = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device, torch.float64) for norm in norms]))
    return torch.where(length > max_grad_norm, max_grad_norm / length, 1.0)


def _norm(gradient: Tensor) -> Tensor:
    gradient = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.linalg.vector_norm(gradient, dtype=torch.float32 if gradient.dtype in HALF else None)


def _write(
    parameters: Sequence[Tensor], gradients: Gradients, options: Options, factor: Tensor | None
) -> Iterable[Tensor]:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        for number in (factor, options.scale):
            if number is not None:
                gradient = gradient.float() if gradient.dtype in HALF else gradient
                gradient = gradient * number.to(gradient.device, gradient.dtype.to_real())
        _accumulate(parameter, gradient.detach().to(parameter.dtype))
        yield parameter


def _accumulate(parameter: Tensor, gradient: Tensor) -> None:
    before = parameter.grad
    if before is not None and before.is_sparse:
        parameter.grad = add(before, gradient)
    elif before is not None:
        before.add_(gradient)
    elif gradient.is_sparse:
        parameter.grad = gradient.clone()
    else:
        # A copy with the parameter's strides: autograd's gradients may share memory, and fused optimizers walk through
        # both in the order of the memory.
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
