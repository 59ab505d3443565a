"""PASCAL-Context for several tasks, as ASTMT (Maninis et al., CVPR 2019) put it together and MTI-Net's code reads it.

::

    root/ImageSets/Context/{train,val}.txt          names, one a line
    root/JPEGImages/{name}.jpg
    root/semseg/{VOC12,pascal-context}/{name}.png   21 classes, 255 unlabelled; VOC12's go first
    root/human_parts/{name}.mat                     PASCAL-Part's annotations, or {name}.png with numbers of groups
    root/sal_distill/{name}.png                     saliency, grey
    root/normals_distill/{name}.png                 normals as colours

The archive ``PASCAL_MT.tgz`` unpacks to it. Edges, its fifth task, are not read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from annotated_types import Interval
from torch import Tensor

from mtrl_imgrad.errors import DatasetError, UnknownNameError
from mtrl_imgrad.supervised.datasets.augmented import AugmentedDataset
from mtrl_imgrad.supervised.datasets.folder import deeper_hint, listing, packed_hint, quoted, read_text
from mtrl_imgrad.supervised.datasets.images import read_pixels
from mtrl_imgrad.supervised.datasets.pascal_files import (
    Array,
    PartGroups,
    check_saliency,
    read_human_parts,
    read_labels,
    read_normals,
    read_saliency,
)
from mtrl_imgrad.supervised.masks import IGNORED_LABEL
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, Seed, checked

PASCAL_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
Label = Annotated[int, Interval(ge=0, le=65535)]
"""A number in a picture of labels."""
_FOLDERS = {
    "segmentation": (("semseg/VOC12", ".png"), ("semseg/pascal-context", ".png")),
    "human_parts": (("human_parts", ".mat"), ("human_parts", ".png")),
    "saliency": (("sal_distill", ".png"),),
    "normal": (("normals_distill", ".png"),),
}
"""Where a task's targets may lie, and their endings; the first that is there is taken."""


@checked
class PascalContext(AugmentedDataset):
    """Photographs with segmentation, parts of people, saliency (two classes) and surface normals.

    A picture is made smaller, never larger, until it fits into ``size``, keeps its aspect ratio, and is filled up with
    black, where nothing is measured. A picture without a person has no target for ``human_parts``.

    Args:
        root: The folder described above.
        split: ``"train"`` (4998 pictures) or ``"val"`` (5105).
        tasks: Which targets to read, all of them where none is named; the folders of others need not be there.
        size: Height and width of the images given out; all of the set fit into 512 x 512 as they are.
        human_parts: Into how many groups parts are put together: 1, 4 or 6 (the papers).
        void: Number of unlabelled pixels in files of labels.
        augment: Whether to zoom and mirror.
        protocol: ``"fixed"`` keeps normals at length 1 through resampling; ``"paper"`` does not.
        seed: Of the augmentation.

    Raises:
        DatasetError: The folder is not in this format; names the file and what to do.
        UnknownNameError: There is no task of a name.
    """

    splits = ("train", "val")

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        tasks: Sequence[str] = (),
        size: tuple[Count, Count] = (512, 512),
        human_parts: PartGroups = 6,
        void: Label = 255,
        augment: bool = False,
        protocol: Protocol = "fixed",
        seed: Seed = 0,
    ) -> None:
        super().__init__(root, split, augment=augment, protocol=protocol, seed=seed)
        for name in tasks:
            if name not in _FOLDERS:
                raise UnknownNameError("task", name, _FOLDERS)
        specs = (
            TaskSpec("segmentation", "segmentation", len(PASCAL_CLASSES)),
            TaskSpec("human_parts", "segmentation", human_parts + 1),
            TaskSpec("saliency", "segmentation", 2),
            TaskSpec("normal", "normal", 3),
        )
        self.tasks = tuple(spec for spec in specs if not tasks or spec.name in tasks)
        self.size = size
        self.names = _names(self.root, split)
        self._readers: dict[str, Callable[[Path], Array]] = {
            "segmentation": partial(read_labels, num_classes=len(PASCAL_CLASSES), void=void),
            "human_parts": partial(read_human_parts, groups=human_parts, void=void),
            "saliency": read_saliency,
            "normal": read_normals,
        }
        self._images = [self.root / "JPEGImages" / f"{name}.jpg" for name in self.names]
        there = {f"{name}.jpg" for name in self.names} & set(listing(self.root / "JPEGImages"))
        if missing := [path for path in self._images if path.name not in there]:
            raise DatasetError(f"{missing[0]}: no such file ({len(missing)} in all); ImageSets/Context names it")
        self._targets = {task.name: _paths(self.root, task.name, self.names) for task in self.tasks}
        if "saliency" in self._targets:
            check_saliency(self._targets["saliency"])

    def __len__(self) -> int:
        return len(self.names)

    def check_differs(self, other: PascalContext) -> None:
        """Two splits must not hold the same pictures.

        Raises:
            DatasetError: if a name is in both; names it.
        """
        if same := sorted(set(self.names) & set(other.names)):
            raise DatasetError(
                f"{self.root}: {same[0]} is in {self.split} and {other.split}; expected different pictures"
            )

    def layers(self, index: int) -> dict[str, Tensor]:
        """See `AugmentedDataset.layers`."""
        pixels = read_pixels(self._images[index])
        arrays = {"image": self._fitted(pixels, 0.0, smooth=True)}
        for task in self.tasks:
            path = self._targets[task.name][index]
            target = self._readers[task.name](path)
            if target.shape[:2] != pixels.shape[:2]:
                raise DatasetError(
                    f"{path}: height and width {list(target.shape[:2])}; expected {list(pixels.shape[:2])} as in "
                    f"{self._images[index].name}"
                )
            unknown = IGNORED_LABEL if task.kind == "segmentation" else 0.0
            arrays[task.name] = self._fitted(target, unknown, smooth=False)
        return arrays

    def _fitted(self, array: Array, unknown: float, smooth: bool) -> Tensor:
        """``[C, H, W]`` of the size given out."""
        maps = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(array).transpose(2, 0, 1)))[None]
        height, width = self.size
        share = min(1.0, height / maps.shape[2], width / maps.shape[3])
        if share < 1:
            inner = (max(round(maps.shape[2] * share), 1), max(round(maps.shape[3] * share), 1))
            how = {"mode": "bilinear", "antialias": True} if smooth else {"mode": "nearest"}
            maps = F.interpolate(maps, inner, **how)
        return F.pad(maps, (0, width - maps.shape[3], 0, height - maps.shape[2]), value=unknown)[0]


def _names(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Context" / f"{split}.txt"
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; {_hint(root)}")
    names = read_text(path, "a list of names").split()
    if not names:
        raise DatasetError(f"{path}: empty; expected names, one a line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{path}: {twice!r} a second time; expected each name once")
    return names


def _hint(root: Path) -> str:
    """What lies there instead, and what to do."""
    names = listing(root)
    if hint := deeper_hint(root, "ImageSets/Context") or packed_hint(root):
        return hint
    if "VOCdevkit" in names or "SegmentationClass" in names:
        return "this is PASCAL VOC alone; the reader takes ASTMT's archive PASCAL_MT.tgz, see docs/datasets.md"
    return f"{root} holds {quoted(names)}"


def _paths(root: Path, task: str, names: Sequence[str]) -> list[Path]:
    """The targets of a task, by picture."""
    places = _FOLDERS[task]
    there = {folder: set(listing(root / folder)) for folder, _ in places if (root / folder).is_dir()}
    if not there:
        wanted = " or ".join(dict.fromkeys(f"{folder}/" for folder, _ in places))
        others = ", ".join(name for name in _FOLDERS if name != task)
        raise DatasetError(f"{root}: no folder {wanted}; expected the targets of {task!r}, or tasks of {others} only")
    paths = []
    for name in names:
        fitting = [root / folder / (name + end) for folder, end in places if name + end in there.get(folder, ())]
        if not fitting:
            wanted = " or ".join(f"{folder}/{name}{end}" for folder, end in places)
            raise DatasetError(f"{root}: no {wanted}; ImageSets/Context names {name}")
        paths.append(fitting[0])
    return paths
