"""Values that a target of a kind cannot have: of another unit, or another encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtrl_imgrad.supervised.masks import IGNORED_LABEL, UNKNOWN_ATTRIBUTE

if TYPE_CHECKING:
    from mtrl_imgrad.supervised.tasks import TaskSpec

_LENGTHS = (0.9, 1.1)
"""Of the median normal; interpolation shortens a few, and normals stored as colours from 0 to 1 have 1.2."""


def outside_classes(task: TaskSpec, labels: Tensor) -> str | None:
    """Labels that are neither classes nor unknown."""
    wrong = labels[(labels < IGNORED_LABEL) | (labels >= task.channels)]
    if not len(wrong):
        return None
    return f"expected classes 0 to {task.channels - 1}, {IGNORED_LABEL} where unknown, got {int(wrong[0])}"


def outside_probabilities(task: TaskSpec, target: Tensor) -> str | None:
    """Attributes that are neither had, nor not had, nor unknown, nor in between."""
    wrong = target[((target < 0) & (target != UNKNOWN_ATTRIBUTE)) | (target > 1)]
    return f"expected 0 to 1, {UNKNOWN_ATTRIBUTE:g} where unknown, got {float(wrong[0]):g}" if len(wrong) else None


def negative(task: TaskSpec, depth: Tensor) -> str | None:
    """Depths below zero."""
    wrong = depth[depth < 0]
    return f"expected depths above 0, 0 where unknown, got {float(wrong[0]):g}" if len(wrong) else None


def other_lengths(task: TaskSpec, normals: Tensor) -> str | None:
    """Normals that are no unit vectors."""
    if normals.ndim != 4:
        return None  # the loss says what shape it wants
    lengths = torch.linalg.vector_norm(normals.float(), dim=1)
    lengths = lengths[lengths > 0]
    if not len(lengths) or _LENGTHS[0] <= (median := float(lengths.median())) <= _LENGTHS[1]:
        return None
    return f"expected unit vectors from -1 to 1, zeros where unknown, got lengths of about {median:.2g}"
