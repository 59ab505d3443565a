"""The record of a kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor

from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import Count, checked

if TYPE_CHECKING:
    from mtrl_imgrad.supervised.tasks import TaskSpec


@checked
@dataclass(frozen=True)
class TaskKind:
    """The record of a kind of task.

    Attributes:
        name: As in `TaskSpec`.
        loss: ``(prediction, target, protocol) -> scalar``, a mean over what was measured.
        metric: ``(task, protocol)`` to the metrics of a task.
        head: ``(raw, protocol)``: what a network's last layer ``[B, channels, ...]`` becomes in a prediction.
        measured: ``(target, protocol)`` to a mask: which terms the mean of the loss has.
        unknown: What a target is full of where nothing is known.
        dense: Whether there is a target for every pixel, or one for the image.
        as_target: A prediction in the form of a target, such as the most probable class.
        show: ``(task, value, truth)``, one image's, in the form of a target: a picture ``[H, W, 3]`` from 0 to 1
            (dense), or a line of text, empty for nothing to say.
        score: The metric that sums a task up, by its name in ``metric``.
        score_is_error: Whether less of it is better.
        selects: Whether ``score`` in validation chooses an epoch; else the loss does.
        channels: Channels of a prediction; None where it is the number of classes.
        misfit: ``(task, target)`` to what is wrong with the values of a target, such as another unit; None for nothing.
            Asked of a run's first batch, and of a split's.
    """

    name: str
    loss: Callable[[Tensor, Tensor, Protocol], Tensor]
    metric: Callable[[TaskSpec, Protocol], Metric]
    head: Callable[[Tensor, Protocol], Tensor]
    measured: Callable[[Tensor, Protocol], Tensor]
    unknown: Any  # a number; NaN, too, which a checked float is not
    dense: bool
    as_target: Callable[[Tensor], Tensor]
    show: Callable[[TaskSpec, Tensor, Tensor], NDArray[Any] | str]
    score: str
    score_is_error: bool = False
    selects: bool = False
    channels: Count | None = None
    misfit: Callable[[TaskSpec, Tensor], str | None] = lambda task, target: None
