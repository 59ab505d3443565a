"""Memory layout of gradients: autograd's contract, which fused optimizers rely on."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, copied if it has others.

    ``loss.backward()`` guarantees this of ``.grad``; `torch.autograd.grad`, `torch.func` and `torch.vmap` do not. Fused
    optimizers read both by their place in memory: with other strides they step each entry by the gradient of another
    one, without an error (PyTorch 2.13, CPU).
    """
    if gradient.layout != torch.strided or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)
