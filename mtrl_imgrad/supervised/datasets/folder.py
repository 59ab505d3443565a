"""The folder of a data set: what lies in it, its splits, and items by index."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.splits import ItemDataset
from mtrl_imgrad.supervised.tasks import TaskSpec

SPLITS = ("train", "val", "test")
SHOWN = 5
"""Names quoted in a message before it only counts."""
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")


class FolderDataset(ItemDataset):
    """Item i is ``(image, {task name: target})``, targets as `TaskSpec` describes them.

    Args:
        root: The folder of the set; ``~`` is the home folder.
        split: One of ``splits``.

    Raises:
        ArgumentError: There is no such split.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    tasks: tuple[TaskSpec, ...]

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        if split not in self.splits:
            raise ArgumentError(f"split must be one of {', '.join(self.splits)}, got {split!r}")
        self.root, self.split = Path(root).expanduser(), split

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def item(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Item ``index``, which is below the length."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.root}, split {self.split!r}, has items 0 to {len(self) - 1}, asked for {index}")
        return self.item(index)


def listing(folder: Path) -> list[str]:
    """Sorted names of what lies in ``folder``, hidden files apart.

    Raises:
        DatasetError: There is no such folder; says what lies beside it.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        parent = folder.parent
        if not parent.is_dir():
            raise DatasetError(f"{parent}: no such folder; expected {folder.name}/ in it") from None
        raise DatasetError(f"{folder}: no such folder; {parent} holds {quoted(listing(parent))}") from None
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror or error})") from error


def quoted(names: list[str]) -> str:
    """A few names for a message, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def deeper_hint(root: Path, *inner: str) -> str:
    """Where the set is if a folder of ``root`` holds one of the folders ``inner``; else empty."""
    deeper = [name for name in listing(root) if any((root / name / one).is_dir() for one in inner)]
    return f"it is in {root / deeper[0]}: take that as root" if deeper else ""


def packed_hint(root: Path) -> str:
    """What to unpack in ``root``; empty where there is no archive."""
    packed = [name for name in listing(root) if name.endswith(_ARCHIVES)]
    return f"unpack {packed[0]} there first" if packed else ""


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        DatasetError: It cannot be read as ``what``.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as {what} ({error})") from error
