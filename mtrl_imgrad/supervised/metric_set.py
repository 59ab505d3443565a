"""The metrics of all tasks together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mtrl_imgrad.errors import TaskMismatchError
from mtrl_imgrad.supervised.objectives import make_metric
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked


@checked
class MetricSet:
    """A `Metric` for every task; results are ``{task: {metric: value}}``.

    Args:
        tasks: in the order of the results.
        protocol: see `Protocol`.
    """

    def __init__(self, tasks: Sequence[TaskSpec], protocol: Protocol = "fixed") -> None:
        self.metrics = {task.name: make_metric(task, protocol) for task in tasks}

    @property
    def higher_is_better(self) -> dict[str, Mapping[str, bool]]:
        """``{task: {metric: bool}}``, what `delta_m` asks for."""
        return {task: metric.higher_is_better for task, metric in self.metrics.items()}

    @checked
    def update(self, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Take a batch in; `predictions` of a network and targets, both by task name.

        Raises:
            TaskMismatchError: if a task is missing from either.
        """
        for name, metric in self.metrics.items():
            for kind, tensors in (("predictions", predictions), ("targets", targets)):
                if name not in tensors:
                    raise TaskMismatchError(f"{kind} must have task {name!r}, got {', '.join(tensors) or 'none'}")
            metric.update(predictions[name], targets[name])

    def merge(self, other: MetricSet) -> None:
        """Add what ``other`` has seen.

        Raises:
            TaskMismatchError: if it is of other tasks.
            ArgumentError: if it is of another protocol.
        """
        if list(self.metrics) != list(other.metrics):
            raise TaskMismatchError(f"other must be of tasks {list(self.metrics)}, got {list(other.metrics)}")
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self.metrics.values():
            metric.reset()

    def compute(self) -> dict[str, dict[str, float]]:
        """``{task: {metric: value}}``, in the units of the published tables."""
        return {name: metric.compute() for name, metric in self.metrics.items()}
