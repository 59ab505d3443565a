"""What does not fit in a data set of one's own, told when torch stumbles over it; a batch that fits costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.masks import IGNORED_LABEL
from mtrl_imgrad.supervised.tasks import TaskSpec

_LARGEST = 20.0
"""Of images: far above any normalization of colours, far below 255."""
_TYPES_DIFFER = ("should be the same", "same dtype", "expected scalar type")
"""How torch's convolutions and products put it."""


def collate(items: Sequence[Any], tasks: Sequence[str]) -> Any:
    """A batch of items, each ``(image, {task name: target})``.

    Raises:
        DatasetError: if an item is something else, lacks a target, or has other shapes than the rest.
    """
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[1], Mapping):
            raise DatasetError(f"an item of the data set is a {_outline(item)}; expected (image, {{task: target}})")
        if missing := [name for name in tasks if name not in item[1]]:
            raise DatasetError(f"an item has no target of task {missing[0]!r}; it has {', '.join(item[1]) or 'none'}")
    try:
        return default_collate(list(items))
    except (TypeError, RuntimeError, KeyError) as error:
        raise DatasetError(
            f"items do not make a batch; expected tensors, of one shape in all: {_outline(items[0])} ... ({error})"
        ) from error


def check_values(images: Tensor, targets: Mapping[str, Tensor], tasks: Sequence[TaskSpec]) -> None:
    """Hold the values of a batch against what its tasks mean by them; waits for a GPU, so for a first batch only.

    Raises:
        DatasetError: if they are of another unit or another encoding.
    """
    if images.is_floating_point() and float(largest := images.abs().max()) > _LARGEST:
        raise DatasetError(f"images with values up to {float(largest):g}; expected RGB from 0 to 1, normalized or not")
    for task in tasks:
        if task.name in targets and (wrong := task.record.misfit(task, targets[task.name])):
            raise DatasetError(f"task {task.name!r}: {wrong}")


@contextmanager
def images_named(images: Tensor) -> Iterator[None]:
    """A network's error over images, in words.

    Raises:
        ArgumentError: if batch norm had a single image, or the images are of a type that the network does not take.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ArgumentError(f"batch_size: batch norm needs two images in a batch, got {len(images)}") from error
    except RuntimeError as error:
        if images.dtype == torch.float32 or not any(words in str(error) for words in _TYPES_DIFFER):
            raise
        raise DatasetError(f"images of {images.dtype}; expected float32, RGB from 0 to 1 ({error})") from error


@contextmanager
def target_named(task: TaskSpec, target: Tensor) -> Iterator[None]:
    """A loss's error over a target, in words.

    Raises:
        ArgumentError: if the shapes are wrong.
        DatasetError: if type or values are wrong.
    """
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(f"task {task.name!r}: {error}") from error
    except (IndexError, RuntimeError) as error:
        wanted = _wanted(task, target)
        if wanted is None:
            raise
        raise DatasetError(f"task {task.name!r}: a target of {target.dtype}; {wanted} ({error})") from error


def _wanted(task: TaskSpec, target: Tensor) -> str | None:
    """What was expected of the target; None where it is so."""
    if task.record.unknown != IGNORED_LABEL or task.record.channels is not None:
        return None if target.is_floating_point() else "expected float32"
    if target.dtype != torch.int64:
        return "expected int64: target.long()"
    return task.record.misfit(task, target)


def _outline(value: Any) -> str:
    """Types and shapes."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(_outline(one) for one in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_outline(one)}' for name, one in value.items())}}}"
    return f"{type(value).__name__} {list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
