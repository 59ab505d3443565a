"""Networks of a backbone and an architecture, which says what of it the tasks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.trunk import Trunk
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class ComposedModel(TaskModel):
    """A head a task, of what an architecture lets the task see of the backbone's trunks.

    Args:
        backbone: of what.
        tasks: of kinds that the backbone has heads for.
        width: multiplies the number of feature maps.
        protocol: see `DenseHead`.
    """

    architecture: ClassVar[str]
    """As in `make_model`, after the backbone's name."""

    def __init__(self, backbone: Backbone, tasks: Sequence[TaskSpec], width: float, protocol: Protocol) -> None:
        self.name = f"{backbone.name}_{self.architecture}"
        self.dense_tasks = backbone.dense_tasks
        super().__init__(tasks, protocol)
        self._backbone, self._width, self._protocol = backbone, width, protocol

    def _trunk(self) -> Trunk:
        return self._backbone.trunk(self._width, any(task.record.dense for task in self.tasks))

    def _finish(self, trunk: Trunk) -> None:
        """Add the heads, for trunks such as this one, and set the first weights of the whole."""
        self.task_heads = nn.ModuleList(
            self._backbone.head(trunk, task, self._protocol, self._width) for task in self.tasks
        )
        self._backbone.start(self)

    @abstractmethod
    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """What the heads of these tasks read; leaves out what only others need."""

    def predict(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """See `TaskModel.predict`."""
        by_task = self.representations(images, tasks)
        return {name: self.head(name)(maps) for name, maps in zip(tasks, by_task, strict=True)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, see `TaskModel`."""
        return self.predict(images, self.task_names)
