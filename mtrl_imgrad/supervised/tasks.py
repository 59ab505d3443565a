"""Supervised tasks: the contract between datasets, models, losses and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.kinds import TaskKind, task_kind
from mtrl_imgrad.validation import Finite, Positive, checked

__all__ = ["TaskSpec"]


@checked
@dataclass(frozen=True)
class TaskSpec:
    """A task: its name, its kind and the channels that a model predicts for it.

    What a batch of B images holds as the target of each kind of this library:

    ============== ========= ================ ====================================================
    kind           dtype     shape            values
    ============== ========= ================ ====================================================
    segmentation   int64     ``[B, H, W]``    class 0 to ``channels - 1``; -1 where unlabelled
    depth          float32   ``[B, 1, H, W]`` metres or inverse depth; 0 where unknown
    normal         float32   ``[B, 3, H, W]`` unit vectors; (0, 0, 0) where unknown
    attribute      float32   ``[B, 1]``       1 where the image has the attribute, else 0; -1 where unknown
    classification int64     ``[B]``          class 0 to ``channels - 1``; -1 where unknown
    regression     float32   ``[B, 1]``       ``(number - offset) / scale``; NaN where unknown
    ============== ========= ================ ====================================================

    Attributes:
        name: How the task is called in batches, reports and logs.
        kind: One of the kinds above, or one that was registered, see `mtrl_imgrad.supervised.kinds`.
        channels: Number of classes for segmentation and classification; 3 for normals; else 1.
        scale: Of a regression: what its targets were divided by; its error is reported times this.
        offset: Of a regression: what was subtracted before.

    Raises:
        ArgumentError: ``channels`` is not what the kind needs.
        UnknownNameError: there is no such kind.
    """

    name: str
    kind: str
    channels: int
    scale: Positive = 1.0
    offset: Finite = 0.0

    def __post_init__(self) -> None:
        needed = self.record.channels
        if needed is None and self.channels < 2:
            raise ArgumentError(f"task {self.name!r}: channels must be at least 2 for {self.kind}, got {self.channels}")
        if needed is not None and self.channels != needed:
            raise ArgumentError(f"task {self.name!r}: channels must be {needed} for {self.kind}, got {self.channels}")

    @property
    def record(self) -> TaskKind:
        """The record of its kind."""
        return task_kind(self.kind)
