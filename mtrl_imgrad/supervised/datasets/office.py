"""Office-31 and Office-Home: pictures of the same things from several sources; a source is a task.

::

    root/{amazon,dslr,webcam}/images/{class}/*.jpg         Office-31, 31 classes, 4 110 pictures
    root/{Art,Clipart,Product,Real World}/{class}/*.jpg    Office-Home, 65 classes, 15 500 pictures

The folder ``images`` may be there or not in both. The sets have no splits of their own: 60, 20 and 20 per cent of each
source are drawn for training, validation and test, as in LibMTL (Lin and Zhang, JMLR 2023), or taken from lists.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.supervised.datasets.folder import SPLITS, FolderDataset, deeper_hint, listing, quoted, read_text
from mtrl_imgrad.supervised.datasets.images import read_image
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, Seed, checked

SHARES = (0.6, 0.8)
"""Where training ends and validation ends."""
ENDINGS = (".jpg", ".jpeg", ".png")

Row = tuple[str, int]
"""A picture's path relative to the root, and its class."""


@checked
class _Office(FolderDataset):
    """One source: item i is ``(image [3, H, W] in [0, 1], {task: class, int64 []})``.

    Args:
        root: The folder that holds the sources; ``~`` is the home folder.
        split: ``"train"``, ``"val"`` or ``"test"``.
        task: Which source.
        size: Height and width that images are resized to.
        lists: Folder of lists ``{task}_{split}.txt`` with a path relative to the root and a class number in each line,
            as LibMTL publishes them; None draws the splits.
        split_seed: Of the draw.

    Raises:
        DatasetError: The folder or a list is not as described; names it.
        UnknownNameError: There is no source of that name.
    """

    task_names: ClassVar[tuple[str, ...]]
    spellings: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Other names of a source's folder."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        task: str,
        size: tuple[Count, Count] = (224, 224),
        lists: str | os.PathLike[str] | None = None,
        split_seed: Seed = 0,
    ) -> None:
        super().__init__(root, split)
        if task not in self.task_names:
            raise UnknownNameError("task", task, self.task_names)
        self.size = size
        self.class_names = self._class_names()
        if lists is None:
            rows = self._pictures(self._source(task))
            self._rows = _drawn(rows, split, [split_seed, self.task_names.index(task)])
        else:
            folder = Path(lists).expanduser()
            if not folder.is_dir():
                raise ArgumentError(f"lists must be a folder of lists, got {str(lists)!r}")
            self._rows = _listed(folder / f"{task}_{split}.txt", self.root, len(self.class_names))
        if not self._rows:
            expected = "five or more in all" if lists is None else f"some in {task}_{split}.txt"
            raise DatasetError(f"{self.root}: no picture of {task!r} for split {split!r}; expected {expected}")
        self.tasks = (TaskSpec(task, "classification", len(self.class_names)),)

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FolderDataset.item`."""
        path, number = self._rows[index]
        return read_image(self.root / path, self.size), {self.tasks[0].name: torch.tensor(number)}

    def _class_names(self) -> tuple[str, ...]:
        """The class names of all sources, which must agree."""
        sources = {name: self._source(name) for name in self.task_names}
        classes = {name: [one for one in listing(at) if (at / one).is_dir()] for name, at in sources.items()}
        first, *others = classes
        for other in others:
            if odd := sorted(set(classes[first]) ^ set(classes[other])):
                where = first if odd[0] in classes[first] else other
                raise DatasetError(f"{self.root}: class {odd[0]!r} is in {where!r} only; expected the same in all")
        if len(classes[first]) < 2:
            raise DatasetError(f"{self._source(first)}: {len(classes[first])} folder(s); expected one for each class")
        return tuple(classes[first])

    def _source(self, task: str) -> Path:
        """The folder that holds the classes of a source."""
        there = listing(self.root)
        name = next((name for name in (task, *self.spellings.get(task, ())) if name in there), None)
        if name is None:
            hint = deeper_hint(self.root, task)
            raise DatasetError(f"{self.root}: no folder {task}; it holds {quoted(there)}{hint and f'; {hint}'}")
        folder = self.root / name
        return folder / "images" if (folder / "images").is_dir() else folder

    def _pictures(self, folder: Path) -> list[Row]:
        rows = []
        for number, name in enumerate(self.class_names):
            pictures = [one for one in listing(folder / name) if one.lower().endswith(ENDINGS)]
            if not pictures:
                there = ", ".join(listing(folder / name)[:5]) or "nothing"
                raise DatasetError(f"{folder / name}: no picture ({', '.join(ENDINGS)}); it holds {there}")
            rows += [(str((folder / name / one).relative_to(self.root)), number) for one in pictures]
        return rows


class Office31(_Office):
    """Office-31 (Saenko et al., ECCV 2010): amazon, dslr, webcam; things on a desk. See `_Office`."""

    task_names = ("amazon", "dslr", "webcam")


class OfficeHome(_Office):
    """Office-Home (Venkateswara et al., CVPR 2017): Art, Clipart, Product, Real_World. See `_Office`."""

    task_names = ("Art", "Clipart", "Product", "Real_World")
    spellings: ClassVar = {"Real_World": ("Real World", "RealWorld")}


def _drawn(rows: list[Row], split: str, seed: list[int]) -> list[Row]:
    """A split's share of the pictures, in the order of the folder."""
    order = np.random.default_rng(seed).permutation(len(rows))
    cuts = [0, *(round(share * len(rows)) for share in SHARES), len(rows)]
    number = SPLITS.index(split)
    return [rows[i] for i in sorted(order[cuts[number] : cuts[number + 1]].tolist())]


def _listed(path: Path, root: Path, num_classes: int) -> list[Row]:
    rows = []
    for number, line in enumerate(read_text(path, "a list of pictures").splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal() or int(label) >= num_classes:
            raise DatasetError(
                f"{path}, line {number}: {line[:60]!r}; expected a path and a class from 0 to {num_classes - 1}"
            )
        if not (root / name).is_file():
            raise DatasetError(f"{path}, line {number}: {root / name} is no file; paths are relative to the root")
        rows.append((name, int(label)))
    return rows
