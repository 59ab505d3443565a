"""The base of metrics: sums on the device that add up over batches and over processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.validation import checked


@checked
class Metric(ABC):
    """Metrics of one task over a split.

    A metric is a handful of sums. They live where the predictions do, `update` never waits for the device, and two
    metrics of the same kind are merged by adding their sums. Counts are int64 and other sums float64.

    Args:
        protocol: see `Protocol`.
    """

    higher_is_better: ClassVar[Mapping[str, bool]]
    """By the names of `compute`, in the order of the published tables."""

    def __init__(self, protocol: Protocol = "fixed") -> None:
        self.protocol = protocol
        self._sums = self._zeros()

    @checked
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take a batch in; a prediction as a network gives it, a target as `TaskSpec` describes it.

        Raises:
            ArgumentError: if the shapes do not fit.
        """
        self._move(prediction.device)
        with torch.no_grad():
            for name, value in self._batch_sums(prediction, target).items():
                self._sums[name] += value

    @checked
    def merge(self, other: Self) -> None:
        """Add what ``other`` has seen.

        Raises:
            ArgumentError: if it is of another kind or protocol, or for another number of classes.
        """
        sizes = {name: value.shape for name, value in self._sums.items()}
        if (
            type(other) is not type(self)
            or other.protocol != self.protocol
            or {name: value.shape for name, value in other._sums.items()} != sizes
        ):
            raise ArgumentError(f"other must be a metric like {self!r} to be merged, got {other!r}")
        for name, value in self._sums.items():
            value += other._sums[name].to(value.device)

    def sum_over(self, total: Callable[[Tensor], Tensor]) -> None:
        """Add what the metrics of other processes have seen.

        Args:
            total: the sum over the processes of a tensor that each of them has.
        """
        self._sums = {name: total(value) for name, value in self._sums.items()}

    def reset(self) -> None:
        """Forget all batches."""
        for value in self._sums.values():
            value.zero_()

    def compute(self) -> dict[str, float]:
        """The metrics by name, with one copy to the host; NaN where nothing was measured."""
        results = self._results({name: value.double() for name, value in self._sums.items()})
        values = torch.stack(list(results.values())).tolist()
        return dict(zip(results, values, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(protocol={self.protocol!r})"

    @abstractmethod
    def _zeros(self) -> dict[str, Tensor]:
        """The sums of no batch."""

    @abstractmethod
    def _batch_sums(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """A batch's summand of each sum."""

    @abstractmethod
    def _results(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of `compute`, from the sums in float64."""

    def _move(self, device: torch.device) -> None:
        if any(value.device != device for value in self._sums.values()):
            self._sums = {name: value.to(device) for name, value in self._sums.items()}
