"""The arrays of dense prediction: what may stand in an image, label, depth or normal file, and reading one.

A folder of a layer holds ``0.npy`` to ``{N-1}.npy``, one array an image, channels last. Headers of all files are
left alone until they are read, so that opening a set of thousands costs a listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.supervised.datasets.folder import listing, quoted
from mtrl_imgrad.supervised.datasets.hints import (
    depth_hint,
    disparity_hint,
    dtype_hint,
    image_hint,
    label_hint,
    normal_hint,
    shape_hint,
)

LONGEST_NORMAL, SHORTEST_NORMAL = 1.02, 0.8
"""Bounds of a vector's length, and of the median length of a file's known ones."""


@dataclass(frozen=True)
class Layer:
    """The kind of arrays in one folder.

    Attributes:
        content: In words, for messages.
        channels: Length of the last axis, or None for an array without one (labels).
        low: Smallest value allowed.
        high: Largest value allowed.
        whole: Whether values are whole numbers; only then may the array be of an integer type.
        unit_vectors: Whether the last axis holds vectors of length 1, or 0.
        void: Number that stands for no label where it is not -1, outside ``low`` to ``high``; see `decode`.
        hint: What probably happened to wrong values, and what to do.
    """

    content: str
    channels: int | None
    low: float
    high: float
    whole: bool = False
    unit_vectors: bool = False
    void: int | None = None
    hint: Callable[[npt.NDArray[np.float32]], str] = field(default=lambda array: "", compare=False)

    def check_header(self, array: npt.NDArray[np.generic], place: object) -> None:
        """Check shape and type.

        Raises:
            DatasetError: They are not the layer's; names ``place``.
        """
        dims = 2 if self.channels is None else 3
        if array.ndim != dims or (self.channels is not None and array.shape[-1] != self.channels):
            shape = "[H, W]" if self.channels is None else f"[H, W, {self.channels}]"
            raise DatasetError(
                f"{place}: shape {list(array.shape)}; expected {shape}: {self.content}"
                + _after(shape_hint(array.shape, self.channels))
            )
        if array.dtype.kind == "f" or (self.whole and array.dtype.kind in "iu"):
            return
        expected = "whole numbers of a floating or integer type" if self.whole else "a floating type"
        raise DatasetError(
            f"{place}: dtype {array.dtype}; expected {expected}: {self.content}"
            + _after(dtype_hint(array.dtype, self.content))
        )

    def check_values(self, array: npt.NDArray[np.float32], place: object) -> None:
        """Check that values are finite, in range and, for labels, whole.

        Raises:
            DatasetError: They are not; names ``place`` and the first wrong pixel.
        """
        known = array if self.void is None else np.where(array == self.void, self.low, array)
        # min and max propagate NaN, so two passes suffice for a sound array
        if array.size and known.min() >= self.low and known.max() <= self.high:
            wrong = self._wrong_within_range(known)
            if wrong is None:
                return
        else:
            wrong = ~((known >= self.low) & (known <= self.high))
        if not array.size:
            raise DatasetError(f"{place}: no pixels")
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DatasetError(
            f"{place}: {int(wrong.sum())} wrong value(s), the first {array[first]} at {list(first)}; "
            f"expected {self.content}" + _after(self.hint(array))
        )

    def decode(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Labels of any encoding as classes from 0, with -1 for none; other arrays as they are."""
        return array if self.void is None else np.where(array == self.void, np.float32(-1), array - self.low)

    def _wrong_within_range(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_] | None:
        """The first place where values in the right range are wrong nonetheless; None for nowhere."""
        if self.whole and not np.array_equal(array, np.rint(array)):
            return array != np.rint(array)
        if not self.unit_vectors:
            return None
        lengths = np.linalg.norm(array, axis=-1)
        known = lengths > 0
        # Resampling shortens a few at edges; nothing lengthens them.
        if known.any() and (lengths.max() > LONGEST_NORMAL or np.median(lengths[known]) < SHORTEST_NORMAL):
            return np.broadcast_to((known & (np.abs(lengths - 1) > 0.02))[..., None], array.shape)
        return None


def _after(hint: str) -> str:
    return f"; {hint}" if hint else ""


# A thousandth of room for resampling and rounding by whoever prepared the files.
IMAGE = Layer("RGB from 0 to 1", 3, -1e-3, 1 + 1e-3, hint=image_hint)
DEPTH = Layer("depth in metres, 0 where unknown", 1, 0.0, 100.0, hint=depth_hint)
ANY_DEPTH = Layer("depth in metres, 0 where unknown", 1, 0.0, float(np.finfo(np.float32).max), hint=depth_hint)
"""Where ``meta.json`` says that depth is in metres, whatever its size."""
DISPARITY = Layer("inverse depth from 0 to 1, 0 where unknown", 1, 0.0, 1.0, hint=disparity_hint)
NORMAL = Layer("unit vectors, (0, 0, 0) where unknown", 3, -1 - 1e-3, 1 + 1e-3, unit_vectors=True, hint=normal_hint)


Void = Literal[-1, 0, 255]
"""What stands for no label in a file; with 0 the classes are counted from 1."""


def label_layer(num_classes: int, void: Void = -1) -> Layer:
    """The layer of class labels 0 to ``num_classes - 1``, or 1 to ``num_classes`` where ``void`` is 0."""
    first = 1 if void == 0 else 0
    last = first + num_classes - 1
    content = f"classes {first} to {last}, {void} where unlabelled"
    hint = partial(label_hint, num_classes=num_classes, void=void)
    if void == -1:
        return Layer(content, None, -1, last, whole=True, hint=hint)
    return Layer(content, None, first, last, whole=True, void=void, hint=hint)


class LayerFolder:
    """The files of one layer of one split.

    Args:
        folder: Where ``0.npy`` and so on lie.
        layer: What they hold.

    Raises:
        DatasetError: The folder is missing or empty, an index is missing, a file has a name of another kind, or the
            first file has a wrong shape or type.
    """

    def __init__(self, folder: Path, layer: Layer) -> None:
        self.folder = folder
        self.layer = layer
        self.count = self._count()
        first = _load(self._path(0), header_only=True)
        layer.check_header(first, self._path(0))
        self.size: tuple[int, int] = (int(first.shape[0]), int(first.shape[1]))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index}.npy"

    def _count(self) -> int:
        names = listing(self.folder)
        expected = {f"{index}.npy" for index in range(len(names))}
        if not names:
            raise DatasetError(f"{self.folder}: empty; expected 0.npy, 1.npy, ...")
        stray = [name for name in names if not _is_index(name)]
        if stray:
            pictures = any(name.lower().endswith((".png", ".jpg", ".jpeg")) for name in stray)
            hint = "; pictures? write them as arrays, with write_nyuv2 or write_cityscapes" if pictures else ""
            raise DatasetError(f"{self.folder}: stray {quoted(stray)}; expected only 0.npy, 1.npy, ...{hint}")
        if missing := sorted(expected - set(names), key=_index):
            last = max(map(_index, names))
            raise DatasetError(f"{self.folder}: {quoted(missing)} missing; expected 0.npy to {last}.npy without a gap")
        return len(names)

    def sample(self, count: int = 8) -> Iterator[npt.NDArray[np.float32]]:
        """Files spread over the folder, as float32; those that cannot be read are left to `read`."""
        for index in np.unique(np.linspace(0, self.count - 1, count).astype(int)):
            try:
                stored = _load(self._path(int(index)))
                self.layer.check_header(stored, "")
            except DatasetError:
                continue
            with np.errstate(over="ignore"):
                yield stored.astype(np.float32)

    def read(self, index: int) -> torch.Tensor:
        """Array number ``index`` as float32, channels first: ``[C, H, W]``, labels ``[1, H, W]``.

        Raises:
            DatasetError: The file cannot be read, or its shape, type or values are wrong.
        """
        path = self._path(index)
        stored = _load(path)
        self.layer.check_header(stored, path)
        if stored.shape[:2] != self.size:
            actual, expected = list(stored.shape[:2]), list(self.size)
            raise DatasetError(f"{path}: height and width {actual}; expected {expected} as in {self._path(0).name}")
        with np.errstate(over="ignore"):  # becomes an infinity, which the next line names
            array = stored.astype(np.float32)
        self.layer.check_values(array, path)
        array = self.layer.decode(array)
        channels_first = array[None] if self.layer.channels is None else np.moveaxis(array, -1, 0)
        return torch.from_numpy(np.ascontiguousarray(channels_first))


def _load(path: Path, header_only: bool = False) -> npt.NDArray[np.generic]:
    try:
        array = np.load(path, mmap_mode="r" if header_only else None, allow_pickle=False)
    except Exception as error:  # a damaged header is read as Python, whose parser has errors of its own
        raise DatasetError(
            f"{path}: cannot be read as a NumPy array ({error}); expected numpy.save's format"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path}: an archive of arrays; expected one array, as numpy.save writes it")
    return array


def _index(name: str) -> int:
    return int(name.removesuffix(".npy"))


def _is_index(name: str) -> bool:
    stem = name.removesuffix(".npy")
    return name.endswith(".npy") and stem.isascii() and stem.isdigit() and str(int(stem)) == stem
