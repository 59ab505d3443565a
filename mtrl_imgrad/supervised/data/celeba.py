"""CelebA (Liu et al., ICCV 2015): faces with forty yes-or-no attributes, each a task.

Two trees are common, and both are read::

    root/Img/img_align_celeba/*.jpg                root/[celeba/]img_align_celeba/*.jpg
    root/Anno/list_attr_celeba.txt                 root/[celeba/]list_attr_celeba.txt
    root/Eval/list_eval_partition.txt              root/[celeba/]list_eval_partition.txt

``list_attr_celeba.txt`` has the number of images in its first line, the names of the attributes in its second, then a
line an image: its name and 1 or -1 for each attribute. ``list_eval_partition.txt`` has a line an image: its name and
0 (train), 1 (val) or 2 (test). The two are joined by name, whatever their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from mtrl_imgrad.checked import checked
from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.data.layers import listing
from mtrl_imgrad.supervised.tasks import TaskSpec

__all__ = ["CELEBA_SPLITS", "CelebA", "CelebATree"]

CELEBA_SPLITS = ("train", "val", "test")
"""In the order of the numbers in ``list_eval_partition.txt``."""


@dataclass(frozen=True)
class CelebATree:
    """Where things lie, relative to the root.

    Attributes:
        images: Folder of the images.
        attributes: The attributes' file.
        partition: The splits' file.
    """

    images: str
    attributes: str
    partition: str

    @classmethod
    def original(cls) -> CelebATree:
        """The tree of the authors' download."""
        anno, partition = "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"
        return cls("Img/img_align_celeba", anno, partition)

    @classmethod
    def flat(cls, folder: str = "celeba") -> CelebATree:
        """Everything in one folder, as torchvision has it."""
        names = ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt")
        return cls(*(os.path.join(folder, name) for name in names))

    @classmethod
    def found(cls, root: Path) -> CelebATree:
        """The tree of ``root``.

        Raises:
            DatasetError: It is none of those known; says what was looked for and what lies there.
        """
        trees = (cls.original(), cls.flat(), cls.flat(""))
        for tree in trees:
            if (root / tree.attributes).is_file():
                return tree
        there = ", ".join(listing(root)[:10]) or "nothing"
        looked = ", ".join(tree.attributes for tree in trees)
        raise DatasetError(f"{root}: no list_attr_celeba.txt; expected one of {looked}; the folder holds {there}")


@checked
class CelebA(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Faces and their attributes; item i is ``(image [3, H, W] in [0, 1], {attribute: float32 [1]})``.

    Images are resized without keeping their aspect ratio and neither normalised nor augmented, as in FAMO's code (Liu
    et al., NeurIPS 2023). Images are opened when they are asked for.

    Args:
        root: The folder that holds one of the two trees.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: Height and width of the images given out; the papers use 64 x 64.

    Raises:
        DatasetError: A file is missing or not as described; names it and its line.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, *, size: tuple[int, int] = (64, 64)) -> None:
        if split not in CELEBA_SPLITS:
            raise ArgumentError(f"split must be one of {', '.join(CELEBA_SPLITS)}, got {split!r}")
        if min(size) < 1:
            raise ArgumentError(f"size must be positive, got {size}")
        self.root = Path(root)
        self.split = split
        self.size = size
        tree = CelebATree.found(self.root)
        self.attribute_names, rows = _read_attributes(self.root / tree.attributes)
        self.file_names = _names_of_split(self.root / tree.partition, split, set(rows))
        self._images = self.root / tree.images
        if missing := sorted(set(self.file_names) - set(listing(self._images))):
            raise DatasetError(
                f"{self._images}: {missing[0]} missing ({len(missing)} in all); {tree.partition} names it"
            )
        self.labels = torch.from_numpy(np.stack([rows[name] for name in self.file_names]) > 0)
        self.tasks = tuple(TaskSpec(name, "attribute", 1) for name in self.attribute_names)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.root}, split {self.split!r}, has items 0 to {len(self) - 1}, asked for {index}")
        labels = self.labels[index].float()
        return self._read_image(self.file_names[index]), dict(zip(self.attribute_names, labels.split(1), strict=True))

    def _read_image(self, name: str) -> Tensor:
        path = self._images / name
        try:
            with Image.open(path) as image:
                height, width = self.size
                pixels = np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).contiguous()


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and words of every line that is not blank."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield f"{path}, line {number}", words


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the attributes, and for each image its row of 1 and -1, int8."""
    lines = _lines(path)
    place, count = next(lines, (str(path), []))
    if len(count) != 1 or not count[0].isdecimal():
        raise DatasetError(f"{place}: {' '.join(count)[:60]!r}; expected the number of images")
    place, names = next(lines, (str(path), []))
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"{place}: {' '.join(names)[:60]!r}; expected the attributes' names, each once")
    rows: dict[str, np.ndarray] = {}
    for place, (name, *values) in lines:
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise DatasetError(f"{place}: {len(values)} values after {name!r}; expected {len(names)}, each 1 or -1")
        if name in rows:
            raise DatasetError(f"{place}: {name!r} a second time; expected each image once")
        rows[name] = np.array(values, dtype=np.int8)
    if len(rows) != int(count[0]):
        raise DatasetError(f"{path}: {len(rows)} images; expected {count[0]}, as its first line says")
    return tuple(names), rows


def _names_of_split(path: Path, split: str, known: set[str]) -> list[str]:
    """Names of the split's images, in the file's order."""
    seen: dict[str, str] = {}
    for place, words in _lines(path):
        if len(words) != 2 or words[1] not in {"0", "1", "2"}:
            raise DatasetError(f"{place}: {' '.join(words)[:60]!r}; expected an image's name and 0, 1 or 2")
        if words[0] in seen:
            raise DatasetError(f"{place}: {words[0]!r} a second time; expected each image once")
        if words[0] not in known:
            raise DatasetError(f"{place}: {words[0]!r} is not in list_attr_celeba.txt")
        seen[words[0]] = words[1]
    if absent := sorted(known - set(seen)):
        raise DatasetError(f"{path}: {absent[0]!r} missing ({len(absent)} in all); list_attr_celeba.txt has it")
    names = [name for name, number in seen.items() if number == str(CELEBA_SPLITS.index(split))]
    if not names:
        raise DatasetError(f"{path}: no image of split {split!r} ({CELEBA_SPLITS.index(split)})")
    return names
