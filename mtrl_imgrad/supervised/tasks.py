"""What a supervised task is: the contract between datasets, models, losses and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

__all__ = ["TaskKind", "TaskSpec"]

TaskKind = Literal["segmentation", "depth", "normal", "attribute"]


@checked
@dataclass(frozen=True)
class TaskSpec:
    """A task: its name, its kind and the channels that a model predicts for it.

    What a batch of B images holds as the target of each kind:

    ============== ========= ================ ====================================================
    kind           dtype     shape            values
    ============== ========= ================ ====================================================
    segmentation   int64     ``[B, H, W]``    class 0 to ``channels - 1``; -1 where unlabelled
    depth          float32   ``[B, 1, H, W]`` metres or inverse depth; 0 where unknown
    normal         float32   ``[B, 3, H, W]`` unit vectors; (0, 0, 0) where unknown
    attribute      float32   ``[B, 1]``       1 where the image has the attribute, else 0; -1 where unknown (training)
    ============== ========= ================ ====================================================

    Attributes:
        name: How the task is called in batches, reports and logs.
        kind: One of the kinds above.
        channels: Number of classes for segmentation; 1 for depth and attributes; 3 for normals.

    Raises:
        ArgumentError: ``channels`` is not what the kind needs.
    """

    name: str
    kind: TaskKind
    channels: int

    def __post_init__(self) -> None:
        if self.kind == "segmentation":
            if self.channels < 2:
                raise ArgumentError(
                    f"task {self.name!r}: channels must be at least 2 for segmentation, got {self.channels}"
                )
        elif self.channels != (needed := 3 if self.kind == "normal" else 1):
            raise ArgumentError(f"task {self.name!r}: channels must be {needed} for {self.kind}, got {self.channels}")
