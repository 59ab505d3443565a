"""Formats of data sets as data: one record each says what reads a folder and which splits and options it has."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.datasets.folder import SPLITS
from mtrl_imgrad.validation import checked, look_up


@checked
@dataclass(frozen=True)
class DataFormat:
    """A format of data sets: the reader of its folder, its splits and options.

    The reader is a ``torch.utils.data.Dataset`` built by ``reader(root, split, **arguments)``. Its items are ``(image
    [3, H, W], {task name: target})``, its ``tasks`` a `TaskSpec` each: losses and metrics follow from their kinds. It
    may have ``set_epoch(epoch)`` for its augmentation, and ``check_differs(other)``, which refuses an evaluation split
    that holds pictures of training.

    Attributes:
        name: As in a configuration's ``data.format``.
        reader: The class, or ``"module:class"``, imported when a data set is opened.
        splits: Splits that every folder has: ``"train"``, ``"val"`` and what else.
        optional_splits: Splits that are evaluated if the folder has a folder of that name.
        options: Arguments of the reader by the field of the configuration's ``data`` that sets them.
        augments: The reader takes ``augment``, ``protocol`` and ``seed``, too.
        of_one_task: The reader opens one task's pictures: it is built once for each of its ``task_names``, by
            ``reader(root, split, task=name, **arguments)``; every task then has a loader of its own.

    Raises:
        ArgumentError: ``splits`` lacks ``"train"`` or ``"val"``.
    """

    name: str
    reader: str | Callable[..., Any]
    splits: tuple[str, ...] = ("train", "val")
    optional_splits: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    augments: bool = False
    of_one_task: bool = False

    def __post_init__(self) -> None:
        if not {"train", "val"} <= set(self.splits):
            raise ArgumentError(f"format {self.name!r}: splits must have 'train' and 'val', got {list(self.splits)}")

    def load(self) -> Callable[..., Any]:
        """The class behind ``reader``."""
        reader: Callable[..., Any] = pkgutil.resolve_name(self.reader) if isinstance(self.reader, str) else self.reader
        return reader


_DENSE = "mtrl_imgrad.supervised.datasets.dense"
_OURS = (
    DataFormat("nyuv2", f"{_DENSE}:NYUv2", optional_splits=("test",), augments=True),
    DataFormat(
        "cityscapes",
        f"{_DENSE}:CityScapes",
        optional_splits=("test",),
        options={"label_dir": "label_dir", "num_classes": "num_classes"},
        augments=True,
    ),
    DataFormat(
        "celeba",
        "mtrl_imgrad.supervised.datasets.celeba:CelebA",
        splits=SPLITS,
        options={"image_size": "size"},
    ),
    *(
        DataFormat(
            name,
            f"mtrl_imgrad.supervised.datasets.office:{reader}",
            splits=SPLITS,
            options={"image_size": "size"},
            of_one_task=True,
        )
        for name, reader in (("office31", "Office31"), ("office_home", "OfficeHome"))
    ),
    DataFormat(
        "pascal_context",
        "mtrl_imgrad.supervised.datasets.pascal:PascalContext",
        options={"image_size": "size", "tasks": "tasks"},
        augments=True,
    ),
    DataFormat("qm9", "mtrl_imgrad.supervised.datasets.qm9:QM9", splits=SPLITS),
)
_FORMATS = {ours.name: ours for ours in _OURS}


@checked
def register_format(record: DataFormat) -> None:
    """Make a format known to configurations of supervised runs; registering a name again replaces the record.

    Raises:
        ArgumentError: The name is one of this library's.
    """
    if record.name in {ours.name for ours in _OURS}:
        raise ArgumentError(f"record must have a name of its own, got {record.name!r}")
    _FORMATS[record.name] = record


def list_formats() -> list[str]:
    """Names that ``data.format`` may have.

    >>> list_formats()[:3]
    ['nyuv2', 'cityscapes', 'celeba']
    """
    return list(_FORMATS)


@checked
def data_format(name: str) -> DataFormat:
    """The record of a format.

    Raises:
        UnknownNameError: There is none of that name.
    """
    return look_up("format", name, _FORMATS)
