"""The kinds of tasks by name."""

from __future__ import annotations

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.kinds.dense import DEPTH, NORMAL, SEGMENTATION
from mtrl_imgrad.supervised.kinds.of_images import ATTRIBUTE, CLASSIFICATION, REGRESSION
from mtrl_imgrad.supervised.kinds.record import TaskKind
from mtrl_imgrad.validation import checked, look_up

_OURS = (SEGMENTATION, DEPTH, NORMAL, ATTRIBUTE, CLASSIFICATION, REGRESSION)
_KINDS = {ours.name: ours for ours in _OURS}


@checked
def register_kind(record: TaskKind) -> None:
    """Make a kind known to `TaskSpec`; registering a name again replaces the record.

    Raises:
        ArgumentError: The name is one of this library's.
    """
    if record.name in {ours.name for ours in _OURS}:
        raise ArgumentError(f"record must have a name of its own, got {record.name!r}")
    _KINDS[record.name] = record


@checked
def list_kinds(*, dense: bool | None = None) -> list[str]:
    """Names that `TaskSpec` takes.

    >>> list_kinds(dense=True)
    ['segmentation', 'depth', 'normal']

    Args:
        dense: only kinds with a target for every pixel, or only those with one for the image.
    """
    return [name for name, kind in _KINDS.items() if dense is None or kind.dense == dense]


@checked
def task_kind(name: str) -> TaskKind:
    """The record of a kind.

    Raises:
        UnknownNameError: There is none of that name.
    """
    return look_up("kind of task", name, _KINDS)
