"""The loss and the metrics of a task, by its kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(prediction, target) -> scalar``."""


@checked
def make_loss(task: TaskSpec, protocol: Protocol = "fixed") -> Loss:
    """The loss of a task.

    Args:
        task: its kind decides.
        protocol: which pixels count, see `measured_pixels`; makes a difference to depth and normals only.
    """
    loss = task.record.loss
    return lambda prediction, target: loss(prediction, target, protocol)


@checked
def make_metric(task: TaskSpec, protocol: Protocol = "fixed") -> Metric:
    """The metrics of a task, by its kind."""
    return task.record.metric(task, protocol)
