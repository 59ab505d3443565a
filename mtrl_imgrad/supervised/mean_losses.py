"""Mean losses by task over the images of a pass that have a target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


def known_images(task: TaskSpec, target: Tensor, protocol: Protocol) -> Tensor:
    """How many images of a batch have something measured; the loss of a batch without any is 0 and says nothing."""
    mask = task.record.measured(target, protocol)
    return mask.reshape(len(mask), -1).any(dim=1).sum()


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

    def add_finite(self, name: str, loss: Tensor, images: Tensor) -> None:
        """As `add`, but for a loss that is not finite: its images do not count."""
        finite = loss.isfinite()
        self.add(name, torch.where(finite, loss, 0.0), images * finite)

    def add(self, name: str, loss: Tensor, images: Tensor) -> None:
        """Count a task's mean loss over some images."""
        self.totals[self._names.index(name)] += images * torch.stack([loss.double(), torch.ones_like(loss).double()])

    def means(self) -> dict[str, float]:
        """By task; NaN without an image."""
        sums, counts = self.totals.T
        return dict(zip(self._names, (sums / counts).tolist(), strict=True))
