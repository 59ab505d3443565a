"""The data of a run: a split to learn from, splits to evaluate on, and the tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Literal, cast

from torch import Tensor
from torch.utils.data import Dataset

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, checked, look_up

ItemDataset = Dataset[tuple[Tensor, dict[str, Tensor]]]
"""Items are ``(image [3, H, W], {task name: target})``."""


@checked
@dataclass(frozen=True)
class Splits:
    """Data for training and evaluation.

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
        _check(self.tasks, self.evaluation)
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
        return dataclasses.replace(self, tasks=_chosen(self.tasks, names))


Mixing = Literal["longest", "round_robin", "proportional"]
"""Which tasks with loaders of their own take part in a step, see `TaskSplits`."""


@checked
@dataclass(frozen=True)
class TaskSplits:
    """Data for training and evaluation where every task has pictures of its own ("multi-input").

    Each data set holds the targets of its task, others are not looked at. Two tasks may share one.

    Attributes:
        train: by task; lengths may differ. May have ``set_epoch(epoch)``.
        evaluation: by split, then by task. Training never sees them, but an epoch may be chosen by ``"val"``.
        tasks: those to learn.
        batch_sizes: images of a batch of some tasks; the others take that of the run.
        mixing: ``"longest"``: all tasks in every step, until the longest loader ends; the others begin anew.
            ``"round_robin"``: ``tasks_per_step`` tasks in turn, every batch once; a task whose loader has ended is left
            out for the rest of the epoch. ``"proportional"``: ``tasks_per_step`` different tasks a step, drawn with
            probabilities in proportion to their numbers of batches; as many steps as round robin has.
        tasks_per_step: tasks of a step where not all take part. A combiner sees those only: of one task nothing is left
            to combine.
        simulated: whether the folder says that it holds a simulation.

    Raises:
        ArgumentError: for no task, no split ``"val"``, or what does not fit the tasks.
    """

    train: Mapping[str, ItemDataset]
    evaluation: Mapping[str, Mapping[str, ItemDataset]]
    tasks: tuple[TaskSpec, ...]
    batch_sizes: Mapping[str, Count] = field(default_factory=dict)
    mixing: Mixing = "longest"
    tasks_per_step: Count = 1
    simulated: bool = False

    def __post_init__(self) -> None:
        _check(self.tasks, self.evaluation)
        names = {task.name for task in self.tasks}
        for split, by_task in {"train": self.train, **self.evaluation}.items():
            if set(by_task) != names:
                raise ArgumentError(f"split {split!r} must have tasks {sorted(names)}, got {sorted(by_task)}")
            for name, items in by_task.items():
                if not length(items):
                    raise ArgumentError(f"split {split!r} of task {name!r} must hold at least one image, got none")
        if odd := sorted(set(self.batch_sizes) - names):
            raise ArgumentError(f"batch_sizes must be of tasks {sorted(names)}, got {odd[0]!r}")
        if self.tasks_per_step > len(names):
            raise ArgumentError(f"tasks_per_step must be at most {len(names)}, got {self.tasks_per_step}")

    @property
    def takes_all(self) -> bool:
        """Whether every step has all tasks."""
        return self.mixing == "longest" or self.tasks_per_step == len(self.tasks) == 1

    @property
    def reported(self) -> str:
        """The split that results are of, see `Splits.reported`."""
        return "test" if "test" in self.evaluation else "val"

    def only(self, names: tuple[str, ...]) -> TaskSplits:
        """The same with some of the tasks.

        Raises:
            UnknownNameError: if there is no task of a name.
        """
        tasks = _chosen(self.tasks, names)
        return dataclasses.replace(
            self,
            train={name: self.train[name] for name in names},
            evaluation={split: {name: items[name] for name in names} for split, items in self.evaluation.items()},
            tasks=tasks,
            batch_sizes={name: size for name, size in self.batch_sizes.items() if name in names},
            tasks_per_step=min(self.tasks_per_step, len(names)),
        )


def _chosen(tasks: tuple[TaskSpec, ...], names: tuple[str, ...]) -> tuple[TaskSpec, ...]:
    known = {task.name: task for task in tasks}
    return tuple(look_up("task", name, known) for name in names)


def _check(tasks: tuple[TaskSpec, ...], evaluation: Mapping[str, object]) -> None:
    if not tasks:
        raise ArgumentError("tasks must name at least one task, got none")
    if "val" not in evaluation:
        raise ArgumentError(f"evaluation must have the split 'val', got {', '.join(evaluation) or 'none'}")


def length(split: ItemDataset) -> int:
    """Number of items."""
    return len(cast(Sized, split))


def set_epoch(split: ItemDataset, epoch: int) -> None:
    """Choose the epoch whose augmentation is drawn, where the split has any."""
    if hasattr(split, "set_epoch"):
        split.set_epoch(epoch)
