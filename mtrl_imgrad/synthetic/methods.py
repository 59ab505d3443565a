"""Methods by name and arguments, and their updates for many trajectories at once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml
from torch import Tensor

from mtrl_imgrad.combiners import (
    Combiner,
    GramianCombiner,
    LossCombiner,
    Status,
    Weights,
    combiner_class,
    make_combiner,
)
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, stream_seed
from mtrl_imgrad.validation import checked

__all__ = ["DEFAULT_METHODS", "Method", "Updates", "check_methods", "is_proven", "parse_method"]

DEFAULT_METHODS = ("linear_scalarization", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "imgrad")
"""Those of IMGrad's figures 2 and 4."""

Batched = GramianCombiner | LossCombiner
"""The combiners that find weights for a batch of Gramians or losses."""


@dataclass(frozen=True)
class Method:
    """A combiner by name, with its arguments.

    Attributes:
        label: what it is called in tables, plots and files; for instance ``"cagrad:c=0.8"``.
        name: registry name.
        arguments: of its constructor.
    """

    label: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Combiner:
        """A new combiner.

        Raises:
            ArgumentError: if the combiner does not take the arguments.
        """
        return make_combiner(self.name, **self.arguments)


@checked
def parse_method(text: str, **defaults: Any) -> Method:
    """A method from ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; values are read as YAML.

    >>> parse_method("cagrad:c=0.8,rescale=false", c=0.4, seed=1).arguments
    {'c': 0.8, 'rescale': False}

    Args:
        text: name and arguments.
        defaults: arguments for those combiners that take them, where ``text`` does not say otherwise.

    Raises:
        UnknownNameError: if there is no such combiner; proposes the closest ones.
        ArgumentError: if the arguments cannot be read, or the combiner does not take them.
    """
    name, _, options = text.partition(":")
    accepted = inspect.signature(combiner_class(name)).parameters
    given = _parse_arguments(text, options)
    taken = {key: value for key, value in defaults.items() if key in accepted}
    method = Method(text, name, {**taken, **given})
    method.make()
    return method


def _parse_arguments(text: str, options: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load("{" + options.replace("=", ": ") + "}")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or any(value is None for value in found.values()):
        raise ArgumentError(f"a method must be NAME or NAME:KEY=VALUE,KEY=VALUE, got {text!r}")
    return {key: _number_or_same(value) for key, value in found.items()}


def _number_or_same(value: Any) -> Any:
    """YAML takes 1e-1 for a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def check_methods(methods: Sequence[str | Method]) -> tuple[Method, ...]:
    """Methods from their texts or as they are.

    Raises:
        ArgumentError: if there is none, two have the same label, or one cannot be read; see `parse_method`.
    """
    found = tuple(method if isinstance(method, Method) else parse_method(method) for method in methods)
    labels = [method.label for method in found]
    if not labels or len(set(labels)) < len(labels):
        raise ArgumentError(f"methods must hold at least one method and none twice, got {labels}")
    return found


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

        Raises:
            ArgumentError: if a combiner that answers for all trajectories has come to keep a memory.
        """
        if self._shared is None:
            each = [one.combine(*given) for one, *given in zip(self._own, jacobians, losses, strict=True)]
            gradients = torch.stack([found.gradient for found in each])  # type: ignore[misc]
            return gradients, torch.stack([found.status_code for found in each])
        found = _weights(self._shared, jacobians, losses)
        return (found.values[..., None] * jacobians).sum(-2), found.status_code

    def check(self) -> None:
        """Make sure that trajectories which share a combiner were independent.

        Raises:
            ArgumentError: if the combiner has come to keep more than a generator.
        """
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
