"""Mean losses by task over the images of a pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class MeanLosses:
    """Sums of losses and of images on the device, in float64; one copy to the host, when the means are asked for.

    Args:
        names: of the K tasks.
        device: of the losses.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._names = list(names)
        self.totals = torch.zeros(len(names), 2, dtype=torch.float64, device=device)
        """``[K, 2]``: sum of losses, number of images."""

    def add(self, name: str, loss: Tensor, images: int | Tensor) -> None:
        """Count a task's mean loss over some images."""
        self.totals[self._names.index(name)] += images * torch.stack([loss.double(), torch.ones_like(loss).double()])

    def means(self) -> dict[str, float]:
        """By task; NaN without an image."""
        sums, counts = self.totals.T
        return dict(zip(self._names, (sums / counts).tolist(), strict=True))
