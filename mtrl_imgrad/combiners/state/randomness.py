"""Random orders and numbers from a combiner's own generator, which its state continues bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def random_orders(like: Tensor, generator: torch.Generator) -> Tensor:
    """For every task an order of all tasks, ``[..., K, K]`` int64 on the device of ``like`` [..., K, K].

    Drawn on the host, so that all devices see the same orders, and copied; the host does not wait.
    """
    keys = torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu")
    return keys.argsort(-1).to(like.device, non_blocking=True)


def in_order(like: Tensor) -> Tensor:
    """The order of the index for every task; shape and device as `random_orders`."""
    return torch.arange(like.shape[-1], device=like.device).expand(like.shape)


def uniform(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """``[count]`` float32 numbers, uniform on [0, 1), drawn on ``device``; the host does not wait.

    ``generator`` lies on the host and is asked for one number, which seeds a generator of the device.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
    of_device = torch.Generator(device).manual_seed(seed)
    return torch.rand(count, generator=of_device, dtype=torch.float32, device=device)
