"""Hard parameter sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec


class HardSharing(FeatureModel):
    """One trunk, a head a task; with one task its single-task baseline.

    On SegNet the "split" network of MTAN's comparison (arXiv 1803.10704): 25 055 185 parameters on NYUv2 (13 classes,
    depth, normals), 25 017 672 on CityScapes (7 classes, depth).

    Args:
        backbone, tasks, width, protocol: as in `ComposedModel`.
    """

    def __init__(self, backbone: Backbone, tasks: Sequence[TaskSpec], width: float, protocol: Protocol) -> None:
        self.name, self.dense_tasks = backbone.name, backbone.dense_tasks
        super().__init__(tasks, protocol)
        self.trunk = trunk = backbone.trunk(width, any(task.record.dense for task in self.tasks))
        self.task_heads = nn.ModuleList(backbone.head(trunk, task, protocol, width) for task in self.tasks)
        backbone.start(self)

    def features(self, images: Tensor) -> Tensor:
        """The trunk's maps ``[B, C, h, w]``: of the image's size, an 8th, 16th or 32nd of it.

        Raises:
            ArgumentError: if ``images`` is not ``[B, 3, H, W]`` of a size that the trunk takes.
        """
        return self.trunk(images)
