"""Whether a folder's arrays are in the unit and encoding that its format says, judged over files that it samples.

A single file cannot tell a dark picture from one that was divided by 255 twice. A set can: all of its files are in one
unit. What no number shows stays unseen: BGR in place of RGB, axes of the normals, classes in another order.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.supervised.datasets.layers import DEPTH, IMAGE, LayerFolder

ENOUGH = 4
"""Files below which the absence of a class says nothing."""


def check_units(folders: Mapping[str, LayerFolder]) -> None:
    """Look at a few files of each layer of a split.

    Args:
        folders: by layer: ``"image"``, ``"segmentation"``, ``"depth"``, ``"normal"``.

    Warns:
        UserWarning: if labels may be counted from 1, or a task has no target in any file looked at.

    Raises:
        DatasetError: if all files looked at are in another unit; names the folder and the remedy.
    """
    for folder in folders.values():
        if folder.layer is IMAGE:
            _check_images(folder)
        elif folder.layer is DEPTH:
            _check_depth(folder)
        elif folder.layer.whole:
            _check_labels(folder)
        if folder.layer is not IMAGE:
            _warn_of_nothing(folder)


def check_splits_differ(first: LayerFolder, second: LayerFolder) -> None:
    """Two splits must not hold the same pictures; compares files of the same number, spread over both.

    Raises:
        DatasetError: if a picture lies in both; names the two files.
    """
    count = min(first.count, second.count)
    for index in np.unique(np.linspace(0, count - 1, 8).astype(int)):
        one, two = (folder.folder / f"{index}.npy" for folder in (first, second))
        if one.samefile(two) or (one.stat().st_size == two.stat().st_size and one.read_bytes() == two.read_bytes()):
            raise DatasetError(f"{two}: the same file as {one}; splits must hold different pictures")


def _check_images(folder: LayerFolder) -> None:
    brightest = _largest(folder)
    if len(brightest) >= ENOUGH and max(brightest) == 0:
        raise DatasetError(
            f"{folder.folder}: all black in {len(brightest)} file(s); expected RGB from 0 to 1; divided as integers?"
        )
    if 0 < max(brightest, default=0.0) <= 2 / 255:
        raise DatasetError(
            f"{folder.folder}: no value above {max(brightest):.2g} in {len(brightest)} file(s); expected RGB from 0 to "
            "1; divided by 255 twice?"
        )


def _check_depth(folder: LayerFolder) -> None:
    farthest = _largest(folder)
    stated = 'if these are metres, "depth_unit": "metres" in meta.json says so'
    if 0 < max(farthest, default=0.0) < 0.5:
        raise DatasetError(
            f"{folder.folder}: nothing farther than {max(farthest):.2g} in {len(farthest)} file(s); expected depth in "
            f"metres; disparity, inverse or scaled depth? {stated}"
        )
    if len(farthest) > 1 and all(abs(value - 1) < 1e-6 for value in farthest):
        raise DatasetError(
            f"{folder.folder}: the farthest is 1 in each of {len(farthest)} files; expected depth in metres; "
            f"scaled to 0..1 file by file? {stated}"
        )


def _warn_of_nothing(folder: LayerFolder) -> None:
    """A task without a target has loss zero in every step, which looks like success."""
    arrays = [folder.layer.decode(array) for array in folder.sample() if array.size]
    nothing = -1 if folder.layer.whole else 0
    if len(arrays) >= ENOUGH and all((array == nothing).all() for array in arrays):
        warnings.warn(
            f"{folder.folder}: nothing known in any of {len(arrays)} files looked at, {nothing} everywhere; the task "
            "would learn nothing",
            stacklevel=2,
        )


def _check_labels(folder: LayerFolder) -> None:
    least = [float(folder.layer.decode(array).min()) for array in folder.sample() if array.size]
    if len(least) >= ENOUGH and min(least) >= 1:
        warnings.warn(
            f"{folder.folder}: neither the first class nor a pixel without label in any of {len(least)} files looked "
            "at; classes counted from 1? void=0 reads them",
            stacklevel=2,
        )


def _largest(folder: LayerFolder) -> list[float]:
    """Each sampled file's largest finite value; of files without one, none."""
    finite = [array[np.isfinite(array)] for array in folder.sample()]
    return [float(values.max()) for values in finite if values.size]
