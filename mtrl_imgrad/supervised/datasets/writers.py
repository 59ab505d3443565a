"""Write folders in exactly the formats that the readers take: for tests, and for data of your own.

Samples are checked as they are written, with the checks of the readers, and a split that exists is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets.celeba import CelebATree
from mtrl_imgrad.supervised.datasets.dense import CITYSCAPES_CLASSES, NYUV2_CLASSES
from mtrl_imgrad.supervised.datasets.description import write_meta
from mtrl_imgrad.supervised.datasets.folder import SPLITS
from mtrl_imgrad.supervised.datasets.layers import DEPTH, DISPARITY, IMAGE, NORMAL, Layer, label_layer
from mtrl_imgrad.validation import checked

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DenseSample:
    """An image with its targets.

    Attributes:
        image: RGB from 0 to 1, ``[H, W, 3]``.
        label: Classes, -1 where unlabelled, ``[H, W]``.
        depth: Metres (CityScapes: inverse depth), 0 where unknown, ``[H, W]``.
        normal: Unit vectors, (0, 0, 0) where unknown, ``[H, W, 3]``; not needed for CityScapes.
    """

    image: Array
    label: Array
    depth: Array
    normal: Array | None = None


@dataclass(frozen=True)
class AttributeSample:
    """An image with its attributes.

    Attributes:
        image: RGB, uint8, ``[H, W, 3]``.
        attributes: What it has, bool, ``[K]``.
    """

    image: npt.NDArray[np.uint8]
    attributes: npt.NDArray[np.bool_]


@checked
def write_nyuv2(
    root: str | os.PathLike[str],
    splits: Mapping[str, Iterable[DenseSample]],
    *,
    classes: Sequence[str] | None = None,
    dtype: npt.DTypeLike = np.float32,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that `NYUv2` reads.

    Args:
        root: Where; created if need be.
        splits: Samples of each split, such as ``{"train": ..., "val": ...}``; iterators are consumed one by one.
        classes: Names of the classes if they are not NYUv2's thirteen; they go into ``meta.json``.
        dtype: A floating type for every array.
        meta: More for ``meta.json``.

    Returns:
        ``root``.

    Raises:
        DatasetError: A sample is not as described, or a split exists.
    """
    layers = _dense_layers("label", len(classes or NYUV2_CLASSES), DEPTH)
    layers["normal"] = (NORMAL, lambda sample: sample.normal)
    return _write_dense(Path(root).expanduser(), splits, layers, classes, dtype, meta)


@checked
def write_cityscapes(
    root: str | os.PathLike[str],
    splits: Mapping[str, Iterable[DenseSample]],
    *,
    label_dir: str = "label_7",
    classes: Sequence[str] | None = None,
    dtype: npt.DTypeLike = np.float32,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that `CityScapes` reads; ``depth`` of the samples is inverse depth. See `write_nyuv2`."""
    layers = _dense_layers(label_dir, len(classes or CITYSCAPES_CLASSES), DISPARITY)
    return _write_dense(Path(root).expanduser(), splits, layers, classes, dtype, meta)


@checked
def write_celeba(
    root: str | os.PathLike[str],
    splits: Mapping[str, Iterable[AttributeSample]],
    attribute_names: Sequence[str],
    *,
    tree: Literal["original", "flat"] = "original",
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that `CelebA` reads: JPEG files, numbered through the splits, and two text files.

    torchvision's own class compares checksums of the published files and so takes no other folder.

    Args:
        root: Where; created if need be.
        splits: Samples of ``"train"``, ``"val"`` and ``"test"``; iterators are consumed one by one.
        attribute_names: Name of each attribute, without blanks.
        tree: ``"original"`` (``Img/``, ``Anno/``, ``Eval/``) or ``"flat"`` (all in ``celeba/``).
        meta: For ``meta.json``; none is written without.

    Returns:
        ``root``.

    Raises:
        DatasetError: A sample is not as described, or the folder of images exists.
        ArgumentError: A split or an attribute's name is none.
    """
    if unknown := set(splits) - set(SPLITS):
        raise ArgumentError(f"splits must be of {', '.join(SPLITS)}, got {sorted(unknown)[0]!r}")
    if not attribute_names:
        raise ArgumentError("attribute_names must hold at least one name, got none")
    if bad := [name for name in attribute_names if len(name.split()) != 1 or name != name.strip()]:
        raise ArgumentError(f"attribute_names must be words without blanks, got {bad[0]!r}")
    layout = CelebATree.original() if tree == "original" else CelebATree.flat()
    root = Path(root).expanduser()
    images = _new_folder(root / layout.images)
    rows: list[str] = []
    parts: list[str] = []
    for number, split in enumerate(SPLITS):
        for sample in splits.get(split, ()):
            name = f"{len(rows) + 1:06d}.jpg"
            _save_jpeg(sample, images / name, len(attribute_names))
            # Published rows are aligned by a blank in front of the 1.
            rows.append(f"{name} " + " ".join(f"{value:2d}" for value in np.where(sample.attributes, 1, -1)))
            parts.append(f"{name} {number}")
    _write_lines(root / layout.attributes, [str(len(rows)), " ".join(attribute_names), *rows])
    _write_lines(root / layout.partition, parts)
    if meta is not None:
        write_meta(root, meta)
    return root


_Layers = dict[str, tuple[Layer, Callable[[DenseSample], Array | None]]]


def _dense_layers(label_dir: str, num_classes: int, depth: Layer) -> _Layers:
    return {
        "image": (IMAGE, lambda sample: sample.image),
        label_dir: (label_layer(num_classes), lambda sample: sample.label),
        "depth": (depth, lambda sample: sample.depth[..., None]),
    }


def _write_dense(
    root: Path,
    splits: Mapping[str, Iterable[DenseSample]],
    layers: _Layers,
    classes: Sequence[str] | None,
    dtype: npt.DTypeLike,
    meta: Mapping[str, Any] | None,
) -> Path:
    try:
        floating = np.issubdtype(np.dtype(dtype), np.floating)
    except (TypeError, ValueError):
        floating = False
    if not floating:
        raise ArgumentError(f"dtype must be a floating type, got {dtype!r}")
    for split, samples in splits.items():
        folders = {name: _new_folder(root / split / name) for name in layers}
        for index, sample in enumerate(samples):
            for name, (layer, pick) in layers.items():
                _save_array(pick(sample), layer, folders[name] / f"{index}.npy", dtype)
    about = {**({"classes": list(classes)} if classes is not None else {}), **(meta or {})}
    if about:
        write_meta(root, about)
    return root


def _save_array(array: Array | None, layer: Layer, path: Path, dtype: npt.DTypeLike) -> None:
    if array is None:
        raise DatasetError(f"{path}: the sample has none; expected {layer.content}")
    layer.check_header(array, path)
    layer.check_values(array.astype(np.float32), path)
    np.save(path, array.astype(dtype))


def _save_jpeg(sample: AttributeSample, path: Path, num_attributes: int) -> None:
    image, attributes = sample.image, sample.attributes
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DatasetError(f"{path}: an image of {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3]")
    if attributes.dtype != np.bool_ or attributes.shape != (num_attributes,):
        raise DatasetError(
            f"{path}: attributes of {attributes.dtype} {list(attributes.shape)}; expected bool [{num_attributes}]"
        )
    Image.fromarray(image).save(path, quality=95)


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise DatasetError(f"{folder}: exists already; expected a new folder to write to") from None
    return folder


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
