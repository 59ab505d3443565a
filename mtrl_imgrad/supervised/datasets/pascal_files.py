"""The files of PASCAL-Context for several tasks: labels, parts of people, normals, saliency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.extras import require
from mtrl_imgrad.supervised.datasets.layers import label_layer
from mtrl_imgrad.supervised.masks import IGNORED_LABEL

Array = npt.NDArray[Any]

PartGroups = Literal[1, 4, 6]
"""Classes beside the background: a person; head, torso, arms, legs; upper and lower arms and legs apart."""

_HEAD = "hair head lear lebrow leye mouth nose rear rebrow reye".split()
_TORSO = "neck torso".split()
_UPPER_ARM, _LOWER_ARM = "luarm ruarm".split(), "llarm rlarm lhand rhand".split()
_UPPER_LEG, _LOWER_LEG = "luleg ruleg".split(), "llleg rlleg lfoot rfoot".split()
_GROUPS: dict[int, tuple[list[str], ...]] = {
    1: ([*_HEAD, *_TORSO, *_UPPER_ARM, *_LOWER_ARM, *_UPPER_LEG, *_LOWER_LEG],),
    4: (_HEAD, _TORSO, [*_UPPER_ARM, *_LOWER_ARM], [*_UPPER_LEG, *_LOWER_LEG]),
    6: (_HEAD, _TORSO, _UPPER_ARM, _LOWER_ARM, _UPPER_LEG, _LOWER_LEG),
}
_PERSON = 15
"""PASCAL VOC's number of the class."""
_SHORTEST, _LONGEST = 0.5, 1.5
"""Lengths between which a colour is a normal: black is (-1, -1, -1), grey is next to (0, 0, 0)."""


def read_labels(path: Path, num_classes: int, void: int) -> Array:
    """Classes ``[H, W]`` as float32, -1 where unlabelled.

    Args:
        path: a picture of class numbers, grey or with a palette.
        num_classes: that it may hold.
        void: number of unlabelled pixels.

    Raises:
        DatasetError: it cannot be read, is in colours, or holds another number.
    """
    labels = _pixels(path, ("L", "P", "I", "I;16"), "class numbers, grey or with a palette; colours? map them back")
    labels = labels.astype(np.float32)
    labels[labels == void] = IGNORED_LABEL
    label_layer(num_classes).check_values(labels, path)
    return labels


def read_human_parts(path: Path, groups: PartGroups, void: int) -> Array:
    """Parts of people ``[H, W]`` as float32: 0 beside them, -1 all over where the picture has none.

    Args:
        path: PASCAL-Part's ``.mat`` file, or ``.png`` with the groups' numbers as `read_labels` takes it.
        groups: how parts are put together; see `PartGroups`.
        void: of a ``.png``.

    Raises:
        DatasetError: it cannot be read, or holds what is no part.
    """
    parts = read_labels(path, groups + 1, void) if path.suffix == ".png" else _from_annotation(path, groups)
    return np.full_like(parts, IGNORED_LABEL) if (parts <= 0).all() else parts


def read_normals(path: Path) -> Array:
    """Unit vectors ``[H, W, 3]`` as float32, (0, 0, 0) where unknown.

    Args:
        path: a picture of colours, ``(normal + 1) / 2 * 255``; black and grey are unknown.

    Raises:
        DatasetError: it cannot be read, or is not in three colours.
    """
    pixels = _pixels(path, ("RGB",), "normals as colours, three channels of 8 bits")
    normals = pixels.astype(np.float32) / 255 * 2 - 1
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = (lengths > _SHORTEST) & (lengths < _LONGEST)
    return np.where(known, normals / np.maximum(lengths, _SHORTEST), 0).astype(np.float32)


def read_saliency(path: Path) -> Array:
    """0 or 1 ``[H, W]`` as float32: where an 8-bit grey picture is in its upper half.

    Raises:
        DatasetError: it cannot be read, or is in colours.
    """
    return (_pixels(path, ("L",), "a grey picture of 8 bits").astype(np.float32) / 255 > 0.5).astype(np.float32)


def check_saliency(paths: Sequence[Path]) -> None:
    """Look at a few pictures of a folder: all of 0 and 1 would have nothing salient.

    Raises:
        DatasetError: they are; names the first and the remedy.
    """
    chosen = [paths[index] for index in np.unique(np.linspace(0, len(paths) - 1, 8).astype(int))]
    brightest = max(int(_pixels(path, ("L",), "a grey picture of 8 bits").max(initial=0)) for path in chosen)
    if brightest == 1:
        raise DatasetError(
            f"{chosen[0]}: 0 and 1 only, as in {len(chosen)} file(s); expected 0 to 255; multiply by 255"
        )


def _pixels(path: Path, modes: tuple[str, ...], expected: str) -> Array:
    try:
        with Image.open(path) as image:
            if image.mode not in modes:
                raise DatasetError(f"{path}: a picture of mode {image.mode}; expected {expected}")
            return np.array(image)
    except DatasetError:
        raise
    except Exception as error:  # Pillow raises what it likes for a damaged file
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error


def _from_annotation(path: Path, groups: PartGroups) -> Array:
    """The parts of all people in ``anno.objects(i)``: ``class_ind``, ``mask``, ``parts(j).part_name``, ``.mask``."""
    require("human parts of PASCAL-Context", "scipy")
    from scipy.io import loadmat

    numbers = {name: number for number, names in enumerate(_GROUPS[groups], start=1) for name in names}
    try:
        objects = loadmat(path, simplify_cells=True)["anno"]["objects"]
        merged: Array | None = None
        for one in _listed(objects):
            merged = np.zeros(one["mask"].shape, np.float32) if merged is None else merged
            for part in _listed(one["parts"]) if int(one["class_ind"]) == _PERSON else []:
                merged[part["mask"].astype(bool)] = numbers[part["part_name"]]
    except Exception as error:  # SciPy raises what it likes for a damaged file
        cause = f"{type(error).__name__}: {error}"
        raise DatasetError(f"{path}: cannot be read as an annotation of PASCAL-Part ({cause})") from error
    if merged is None:
        raise DatasetError(f"{path}: no object; expected an annotation of PASCAL-Part, anno.objects")
    return merged


def _listed(entries: Any) -> list[Any]:
    """The entries of a struct array, which MATLAB's files hold as a struct where there is one."""
    return [entries] if isinstance(entries, dict) else list(entries)
