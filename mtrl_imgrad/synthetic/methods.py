"""The updates of methods for many trajectories at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combiner, GramianCombiner, LossCombiner, Status, Weights
from mtrl_imgrad.combiners.method_strings import Method, parse_method
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, stream_seed

DEFAULT_METHODS = ("linear_scalarization", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "imgrad")
"""Those of IMGrad's figures 2 and 4."""

Batched = GramianCombiner | LossCombiner
"""The combiners that find weights for a batch of Gramians or losses."""


def check_methods(methods: Sequence[str | Method]) -> tuple[Method, ...]:
    """Methods from their texts or as they are.

    Raises:
        ArgumentError: if there is none, two have the same label, or one cannot be read; see `parse_method`.
    """
    chosen = tuple(method if isinstance(method, Method) else parse_method(method) for method in methods)
    labels = [method.label for method in chosen]
    if not labels or len(set(labels)) < len(labels):
        raise ArgumentError(f"methods must hold at least one method and none twice, got {labels}")
    return chosen


class Updates:
    """The updates of one method for ``count`` independent trajectories.

    Combiners without a memory answer for all trajectories at once. (A generator is none: each trajectory has draws of
    its own.) All others, and those that work entry by entry, have a combiner a trajectory.

    Args:
        method: the method.
        count: number of trajectories.
        seed: of the run; each combiner draws from its own stream of it.
    """

    def __init__(self, method: Method, count: int, seed: int = 0) -> None:
        combiners = [method.make() for _ in range(count)]
        for index, combiner in enumerate(combiners):
            combiner.set_random_seed(stream_seed(seed, Stream.TRAJECTORIES, index))
        self._label = method.label
        first = combiners[0]
        self._shared = first if isinstance(first, Batched) and _is_memoryless(first) else None
        self._own = [] if self._shared is not None else combiners

    def __call__(self, jacobians: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Combine the gradients of each trajectory.

        Args:
            jacobians: ``[N, 2, 2]``.
            losses: ``[N, 2]``.

        Returns:
            Updates ``[N, 2]`` and `mtrl_imgrad.combiners.Status` codes ``[N]``.
        """
        if self._shared is None:
            each = [one.combine(*given) for one, *given in zip(self._own, jacobians, losses, strict=True)]
            gradients = torch.stack([one.gradient for one in each])  # type: ignore[misc]
            return gradients, torch.stack([one.status_code for one in each])
        weights = _weights(self._shared, jacobians, losses)
        return (weights.values[..., None] * jacobians).sum(-2), weights.status_code

    def check(self) -> None:
        """Make sure that trajectories which share a combiner were independent."""
        if self._shared is not None and not _is_memoryless(self._shared):
            raise ArgumentError(f"{self._label} must show in its first state_dict() that it keeps a memory")


def _weights(combiner: Batched, jacobians: Tensor, losses: Tensor) -> Weights:
    if isinstance(combiner, LossCombiner):
        return combiner.weights(losses)
    return combiner.weights(jacobians @ jacobians.mT, losses)


def _is_memoryless(combiner: Combiner) -> bool:
    return set(combiner.state_dict()) <= {"generator"}


def is_proven(status_code: Tensor) -> Tensor:
    """Whether an update comes with a proof of being the method's."""
    return (status_code == int(Status.SOLVED)) | (status_code == int(Status.ZERO_GRADIENTS))
