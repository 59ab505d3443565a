"""What every network for supervised tasks offers: predictions by task, and whose parameters are whose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.kinds import list_kinds
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked, look_up


@checked
class TaskModel(nn.Module, ABC):
    """A network from images to a prediction for every task.

    ``forward`` maps ``[B, 3, H, W]`` to a dictionary by task name: segmentation log-probabilities ``[B, C, H, W]``,
    depth ``[B, 1, H, W]``, unit normals ``[B, 3, H, W]``, attribute logits and numbers ``[B, 1]``, class
    log-probabilities ``[B, C]``.

    Args:
        tasks: their order is the order of the heads in a state dictionary.
        protocol: how normals are normalised, see `make_head`.

    Raises:
        ArgumentError: for no task, two tasks of one name, or a kind that the network has no head for.
    """

    name: str
    """As in `make_model`."""
    dense_tasks: bool | None = None
    """Whether it has heads for dense kinds of task, or for those of whole images; None for both."""
    has_features: ClassVar[bool] = False
    """Whether it is a `FeatureModel`."""
    task_heads: nn.ModuleList
    """One head a task, in the order of ``tasks``."""

    def __init__(self, tasks: Sequence[TaskSpec], protocol: Protocol) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        _check_tasks(self.name, self.tasks, self.dense_tasks)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(task.name for task in self.tasks)

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, see the class."""

    def predict(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Predictions of some tasks only; a network that can leave out what the others alone need does so."""
        predictions = self(images)
        return {name: predictions[name] for name in tasks}

    def head(self, task: str) -> nn.Module:
        """The layers that make the prediction of ``task`` and serve nothing else."""
        return self.task_heads[self._index(task)]

    def own_modules(self, task: str) -> list[nn.Module]:
        """All modules whose parameters the loss of ``task`` reaches and no other loss does: the head and what else."""
        return [self.head(task)]

    def _index(self, task: str) -> int:
        return look_up("task", task, {name: k for k, name in enumerate(self.task_names)})

    def _predict(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Every head on its own input."""
        return {name: head(z) for name, head, z in zip(self.task_names, self.task_heads, maps, strict=True)}


class FeatureModel(TaskModel):
    """A network with one representation that all heads read: ``forward = heads(features(images))``.

    So the K gradients can be taken at the representation, with one backward through the trunk (Sener and Koltun,
    NeurIPS 2018, arXiv 1810.04650, section 3.3).
    """

    has_features = True

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """The representation: ``[B, 3, H, W]`` to ``[B, C, H, W]`` (dense tasks) or ``[B, C]`` (of images)."""

    def heads(self, features: Tensor) -> dict[str, Tensor]:
        """Predictions by task name."""
        return self._predict([features] * len(self.tasks))

    def predict(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See `TaskModel.predict`: the heads of these tasks only."""
        features = self.features(images)
        return {name: self.head(name)(features) for name in tasks}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``heads(features(images))``."""
        return self.heads(self.features(images))


def _check_tasks(model: str, tasks: tuple[TaskSpec, ...], dense: bool | None) -> None:
    if not tasks:
        raise ArgumentError("tasks must name at least one task, got none")
    twice = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
    if twice:
        raise ArgumentError(f"tasks must have different names, got {', '.join(map(repr, twice))} more than once")
    for task in tasks:
        if dense is not None and task.record.dense != dense:
            raise ArgumentError(
                f"model {model!r} has no head for task {task.name!r} of kind {task.kind!r}; kinds: "
                f"{', '.join(sorted(list_kinds(dense=dense)))}"
            )
