"""The data of a run: a split to learn from, splits to evaluate on, and the tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.utils.data import Dataset

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

__all__ = ["ItemDataset", "Splits"]

ItemDataset = Dataset[tuple[Tensor, dict[str, Tensor]]]
"""Items are ``(image [3, H, W], {task name: target})``."""


@checked
@dataclass(frozen=True)
class Splits:
    """What a network learns from and is judged on.

    Attributes:
        train: may have ``set_epoch(epoch)``, which is then called before each epoch.
        evaluation: splits by name. Training never sees them, but an epoch may be chosen by ``"val"``.
        tasks: those to learn; the data may hold more.
        simulated: whether the folder says that it holds a simulation.

    Raises:
        ArgumentError: for no task, an empty split, or no split ``"val"``.
    """

    train: ItemDataset
    evaluation: Mapping[str, ItemDataset]
    tasks: tuple[TaskSpec, ...]
    simulated: bool = False

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ArgumentError("tasks must name at least one task, got none")
        if "val" not in self.evaluation:
            raise ArgumentError(f"evaluation must have the split 'val', got {', '.join(self.evaluation) or 'none'}")
        for name, split in {"train": self.train, **self.evaluation}.items():
            if not length(split):
                raise ArgumentError(f"split {name!r} must hold at least one image, got none")

    @property
    def reported(self) -> str:
        """The split that results are of: ``"test"`` where there is one, else ``"val"`` (the papers' habit)."""
        return "test" if "test" in self.evaluation else "val"

    def only(self, names: tuple[str, ...]) -> Splits:
        """The same with some of the tasks.

        Raises:
            UnknownNameError: if there is no task of a name.
        """
        known = {task.name: task for task in self.tasks}
        for name in names:
            if name not in known:
                raise UnknownNameError("task", name, known)
        return dataclasses.replace(self, tasks=tuple(known[name] for name in names))


def length(split: ItemDataset) -> int:
    """Number of items."""
    return len(cast(Sized, split))
