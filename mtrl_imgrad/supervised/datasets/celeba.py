"""CelebA (Liu et al., ICCV 2015): faces with forty yes-or-no attributes, each a task.

Three trees are common, and all are read: the authors' download, torchvision's, and Kaggle's (group DRO has the last in
a folder ``data``)::

    root/Img/img_align_celeba/        root/[celeba/]img_align_celeba/        root/[data/]img_align_celeba/
    root/Anno/list_attr_celeba.txt    root/[celeba/]list_attr_celeba.txt     root/[data/]list_attr_celeba.csv
    root/Eval/list_eval_partition.txt root/[celeba/]list_eval_partition.txt  root/[data/]list_eval_partition.csv

The images may lie in a second folder ``img_align_celeba`` in the first, as Kaggle's archive unpacks. The files of text
are described in `mtrl_imgrad.supervised.datasets.celeba_files`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.supervised.datasets.celeba_files import names_of_split, read_attributes
from mtrl_imgrad.supervised.datasets.folder import FolderDataset, listing, quoted
from mtrl_imgrad.supervised.datasets.images import read_image
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, checked


@dataclass(frozen=True)
class CelebATree:
    """The layout of a CelebA folder, relative to the root.

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
    def flat(cls, folder: str = "celeba", suffix: str = ".txt") -> CelebATree:
        """Everything in one folder, as torchvision (``.txt``) and Kaggle (``.csv``) have it."""
        names = ("img_align_celeba", f"list_attr_celeba{suffix}", f"list_eval_partition{suffix}")
        return cls(*(os.path.join(folder, name) for name in names))

    @classmethod
    def locate(cls, root: Path) -> CelebATree:
        """The tree of ``root``, with the folder that the images really lie in.

        Raises:
            DatasetError: It is none of those known; says what was looked for and what lies there.
        """
        trees = [cls.original(), *(cls.flat(folder) for folder in ("celeba", ""))]
        trees += [cls.flat(folder, ".csv") for folder in ("", "data", "celeba")]
        for tree in trees:
            if (root / tree.attributes).is_file():
                return tree._with_images(root)
        names = listing(root)
        looked = ", ".join(tree.attributes for tree in trees)
        deeper = [name for name in names if any((root / name / tree.attributes).is_file() for tree in trees)]
        hint = f"; it is in {root / deeper[0]}: take that as root" if deeper else ""
        raise DatasetError(
            f"{root}: no list_attr_celeba; expected one of {looked}; the folder holds {quoted(names)}{hint}"
        )

    def _with_images(self, root: Path) -> CelebATree:
        inner = os.path.join(self.images, "img_align_celeba")
        if (root / inner).is_dir():
            return replace(self, images=inner)
        folder = root / self.images
        if folder.is_dir():
            return self
        beside = folder.parent
        names = listing(beside) if beside.is_dir() else []
        hint = ""
        if "img_align_celeba.zip" in names:
            hint = "; unpack img_align_celeba.zip there"
        elif others := [name for name in names if name.startswith("img_")]:
            hint = f"; {', '.join(others)} holds other images than the aligned JPEG files, which the papers use"
        raise DatasetError(f"{folder}: no such folder; expected the aligned images, 000001.jpg and so on{hint}")


@checked
class CelebA(FolderDataset):
    """Faces and their attributes; item i is ``(image [3, H, W] in [0, 1], {attribute: float32 [1]})``.

    Images are resized without keeping their aspect ratio and neither normalised nor augmented, as in FAMO's code (Liu
    et al., NeurIPS 2023). Images are opened when they are asked for.

    Args:
        root: The folder that holds one of the trees; ``~`` is the home folder.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: Height and width of the images given out; the papers use 64 x 64.

    Raises:
        DatasetError: A file is missing or not as described; names it and its line.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, *, size: tuple[Count, Count] = (64, 64)) -> None:
        super().__init__(root, split)
        self.size = size
        tree = CelebATree.locate(self.root)
        self.attribute_names, rows = read_attributes(self.root / tree.attributes)
        self.file_names = names_of_split(self.root / tree.partition, split, set(rows))
        self._images = self.root / tree.images
        if missing := sorted(set(self.file_names) - set(listing(self._images))):
            raise DatasetError(
                f"{self._images}: {missing[0]} missing ({len(missing)} in all); {tree.partition} names it"
                + _named_otherwise(self._images, missing[0])
            )
        self.labels = torch.from_numpy(np.stack([rows[name] for name in self.file_names]) > 0)
        self.tasks = tuple(TaskSpec(name, "attribute", 1) for name in self.attribute_names)

    def __len__(self) -> int:
        return len(self.file_names)

    def item(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FolderDataset.item`."""
        labels = self.labels[index].float()
        image = read_image(self._images / self.file_names[index], self.size)
        return image, dict(zip(self.attribute_names, labels.split(1), strict=True))


def _named_otherwise(folder: Path, name: str) -> str:
    """A hint at the same picture under another ending."""
    stem = name.rpartition(".")[0]
    suffix = next((other for other in (".png", ".jpeg", ".JPG") if (folder / (stem + other)).exists()), None)
    return f"; {stem}{suffix} is there, but the papers use the JPEG files" if suffix else ""
