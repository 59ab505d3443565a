"""NYUv2 and CityScapes in the layout of MTAN (Liu et al., CVPR 2019), which all papers on gradient combination use.

::

    root/{train,val}/image/{i}.npy     [H, W, 3]  RGB from 0 to 1
    root/{train,val}/label/{i}.npy     [H, W]     classes, -1 where unlabelled (CityScapes: label_7)
    root/{train,val}/depth/{i}.npy     [H, W, 1]  metres (CityScapes: inverse depth), 0 where unknown
    root/{train,val}/normal/{i}.npy    [H, W, 3]  unit vectors, (0, 0, 0) where unknown (NYUv2 only)

Any floating type will do. A ``meta.json`` in the root may name other classes (``{"classes": [...]}``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn.functional import normalize

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets.augmented import AugmentedDataset
from mtrl_imgrad.supervised.datasets.description import class_names, depth_is_stated
from mtrl_imgrad.supervised.datasets.layers import (
    ANY_DEPTH,
    DEPTH,
    DISPARITY,
    IMAGE,
    NORMAL,
    Layer,
    LayerFolder,
    Void,
    label_layer,
)
from mtrl_imgrad.supervised.datasets.layouts import check_root
from mtrl_imgrad.supervised.datasets.units import check_splits_differ, check_units
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Seed, checked

NYUV2_CLASSES = tuple("bed books ceiling chair floor furniture objects picture sofa table tv wall window".split())
CITYSCAPES_CLASSES = tuple("flat construction object nature sky human vehicle".split())


@checked
class DenseDataset(AugmentedDataset):
    """Images with a target for every pixel; item i is ``(image [3, H, W], {task name: target})``.

    Targets are as `TaskSpec` describes them. The folder's listing and first files are checked at construction, the
    values of a file when it is read.

    Args:
        root: The folder that holds the splits.
        split: ``"train"``, ``"val"`` or ``"test"``; the published sets have no ``"test"``.
        folders: Folder and contents of each layer, by name: ``"image"`` and the tasks.
        classes: Names of the segmentation's classes.
        inverse_depth: Whether depth is inverse depth.
        augment: Whether to zoom and mirror (`draw_view`).
        protocol: ``"paper"`` keeps the published code's quirks in what it does to depth and normals.
        seed: Of the augmentation; item i of epoch e is the same for the same seed, whichever worker reads it.

    Raises:
        DatasetError: The folder is not as described; names the file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        folders: Mapping[str, tuple[str, Layer]],
        *,
        classes: tuple[str, ...],
        inverse_depth: bool,
        augment: bool,
        protocol: Protocol,
        seed: int,
    ) -> None:
        super().__init__(root, split, augment=augment, protocol=protocol, seed=seed, inverse_depth=inverse_depth)
        self.class_names = classes
        if len(classes) < 2:
            raise ArgumentError(f"classes must name 2 classes or more, got {len(classes)}")
        self._folders = _open(self.root, split, folders)
        specs = (
            TaskSpec("segmentation", "segmentation", len(classes)),
            TaskSpec("depth", "depth", 1),
            TaskSpec("normal", "normal", 3),
        )
        self.tasks = tuple(spec for spec in specs if spec.name in folders)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self._folders["image"].size

    def __len__(self) -> int:
        return self._folders["image"].count

    def check_differs(self, other: DenseDataset) -> None:
        """Two splits must not hold the same pictures: one judges what was learned from the other.

        Raises:
            DatasetError: if one of the pictures compared lies in both.
        """
        check_splits_differ(self._folders["image"], other._folders["image"])

    def layers(self, index: int) -> dict[str, Tensor]:
        """See `AugmentedDataset.layers`."""
        layers = {name: folder.read(index) for name, folder in self._folders.items()}
        if self.protocol == "fixed" and "normal" in layers:
            layers["normal"] = normalize(layers["normal"], dim=0)  # files made by resizing hold shorter ones at edges
        return layers


@checked
class NYUv2(DenseDataset):
    """Indoor scenes with segmentation, depth in metres and surface normals.

    The set of MTAN has 795 images for training and 654 in ``"val"``, which the papers take as their test set, of
    288 x 384 pixels and 13 classes. Simulated scenes of the same format carry their own classes.

    Args:
        root: The folder that holds the splits.
        split: ``"train"``, ``"val"`` or ``"test"``.
        augment: Whether to zoom and mirror; the papers do, in training.
        protocol: ``"fixed"`` keeps normals at length 1 through resampling; ``"paper"`` does not.
        seed: Of the augmentation.
        void: What stands for no label: -1, or 255, or 0 with the classes counted from 1.

    Raises:
        DatasetError: The folder is not in this format; names the file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        augment: bool = False,
        protocol: Protocol = "fixed",
        seed: Seed = 0,
        void: Void = -1,
    ) -> None:
        classes = class_names(Path(root).expanduser(), NYUV2_CLASSES)
        folders = {
            "image": ("image", IMAGE),
            "segmentation": ("label", label_layer(len(classes), void)),
            "depth": ("depth", ANY_DEPTH if depth_is_stated(Path(root).expanduser()) else DEPTH),
            "normal": ("normal", NORMAL),
        }
        super().__init__(
            root, split, folders, classes=classes, inverse_depth=False, augment=augment, protocol=protocol, seed=seed
        )


@checked
class CityScapes(DenseDataset):
    """Street scenes with segmentation and inverse depth.

    The set of MTAN has 2975 images for training and 500 in ``"val"``, of 128 x 256 pixels. Its inverse depth is the
    16-bit disparity scaled to below 1.

    Args:
        root: The folder that holds the splits.
        split: ``"train"``, ``"val"`` or ``"test"``.
        label_dir: Folder of the labels: ``"label_7"`` in the common download, ``"label"`` in LibMTL's.
        num_classes: Of the labels in it, where ``meta.json`` does not name the classes.
        augment: Whether to zoom and mirror; the papers do, in training.
        protocol: ``"fixed"`` multiplies inverse depth by the zoom; ``"paper"`` divides it, as all published rows did.
        seed: Of the augmentation.
        void: What stands for no label: -1, or 255, or 0 with the classes counted from 1.

    Raises:
        DatasetError: The folder is not in this format; names the file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        label_dir: str = "label_7",
        num_classes: int = 7,
        augment: bool = False,
        protocol: Protocol = "fixed",
        seed: Seed = 0,
        void: Void = -1,
    ) -> None:
        named = num_classes == len(CITYSCAPES_CLASSES)
        default = CITYSCAPES_CLASSES if named else tuple(f"class {number}" for number in range(num_classes))
        classes = class_names(Path(root).expanduser(), default)
        folders = {
            "image": ("image", IMAGE),
            "segmentation": (label_dir, label_layer(len(classes), void)),
            "depth": ("depth", DISPARITY),
        }
        super().__init__(
            root, split, folders, classes=classes, inverse_depth=True, augment=augment, protocol=protocol, seed=seed
        )


def _open(root: Path, split: str, folders: Mapping[str, tuple[str, Layer]]) -> dict[str, LayerFolder]:
    """Open every layer of a split and check that they agree in number and size."""
    if "image" not in folders:
        raise ArgumentError(f"folders must have 'image', got {', '.join(folders) or 'none'}")
    check_root(root, split)
    opened = {name: LayerFolder(root / split / folder, layer) for name, (folder, layer) in folders.items()}
    images = opened["image"]
    for folder in opened.values():
        if folder.count != images.count:
            raise DatasetError(
                f"{folder.folder}: {folder.count} files; expected {images.count}, as {images.folder.name}/ holds: "
                f"{min(folder.count, images.count)}.npy is in one only"
            )
        if folder.size != images.size:
            raise DatasetError(
                f"{folder.folder / '0.npy'}: height and width {list(folder.size)}; "
                f"expected {list(images.size)} as in {images.folder.name}/0.npy"
            )
    check_units(opened)
    return opened
