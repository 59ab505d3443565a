"""Weights on the simplex that a method moves from step to step."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable


def project_simplex(point: Tensor) -> Tensor:
    """The nearest point of the simplex, by sorting; ``[..., K]``, exact."""
    ordered = point.sort(-1, descending=True).values
    ranks = torch.arange(1, point.shape[-1] + 1, dtype=point.dtype, device=point.device)
    thresholds = (ordered.cumsum(-1) - 1) / ranks
    # Thresholds rise to the right one and fall behind it.
    return (point - thresholds.amax(-1, keepdim=True)).clamp_min(0)


class SimplexTable(TaskTable):
    """A weight a task. The tasks of a step share out their joint weight; absent ones keep theirs.

    A new task gets weight 1 / K.
    """

    def __init__(self) -> None:
        super().__init__(first=torch.nan)

    def shares(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """Weights ``[K]`` of ``tasks``, scaled to sum 1."""
        known = self._known(like, tasks)
        return known / known.sum()

    def write_shares(self, shares: Tensor, tasks: TaskIds | None, where: Tensor) -> None:
        """Set the weights of ``tasks`` to ``shares`` [K] of their joint weight, where the flag ``where`` is true."""
        self.write(shares * self._known(shares, tasks).sum(), tasks, where)

    def _known(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        rows = self.rows(like, tasks)
        return torch.where(rows.isnan(), 1 / like.shape[0], rows)
