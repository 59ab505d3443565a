"""Hints for an array that is not as its format says: the probable cause and the remedy.

Files of the right shape and type in another unit or encoding are the common mistakes of those who prepare a set
themselves: 0..255 images, millimetres, 255 for void, classes from 1, normals as colors, channels first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def shape_hint(shape: tuple[int, ...], channels: int | None) -> str:
    """Of an array of the wrong shape.

    Args:
        shape: that it has.
        channels: length that the last axis should have, or None for ``[H, W]``.
    """
    if channels is None:
        if len(shape) == 3 and 1 in (shape[0], shape[-1]):
            return "np.squeeze(array) drops the axis of length 1"
        return "one-hot? np.argmax(array, axis=-1) gives classes" if len(shape) == 3 else ""
    if len(shape) == 3 and shape[0] == channels:
        return "channels first? np.moveaxis(array, 0, -1) puts them last"
    if len(shape) == 2 and channels == 1:
        return "array[..., None] adds the last axis"
    if len(shape) == 2:
        return f"a grey picture? np.repeat(array[..., None], {channels}, axis=-1)" if channels == 3 else ""
    if len(shape) == 3 and shape[-1] == 4 and channels == 3:
        return "array[..., :3] drops an alpha channel"
    return "a batch? one file holds one image" if len(shape) == 4 else ""


def dtype_hint(dtype: np.dtype[Any], content: str) -> str:
    """Of an array of the wrong type."""
    if dtype == np.uint16 and "metres" in content:
        return "divide 16-bit millimetres by 1000 and save them as float32"
    if dtype == np.uint16 and "inverse depth" in content:
        return "divide 16-bit disparity by 65536 and save it as float32"
    if dtype == np.uint8 and "unit vectors" in content:
        return "normals as colors? array / 255 * 2 - 1 in float32, (0, 0, 0) where unknown"
    if dtype.kind in "iu" and "metres" in content:
        return "integers in millimetres? divide by 1000 and save them as float32"
    return "divide 8-bit pictures by 255 and save them as float32" if dtype == np.uint8 else ""


def image_hint(array: Array) -> str:
    """Of values that are not RGB from 0 to 1."""
    if not np.isfinite(array).all():
        return ""
    if array.min() < -1e-3:
        return "normalized? undo it: array * std + mean, or (array + 1) / 2 for -1..1"
    return "0..255? divide by 255" if array.max() > 1 else ""


def label_hint(array: Array, num_classes: int, void: int) -> str:
    """Of values that are neither classes nor ``void``."""
    if not np.isfinite(array).all():
        return f"{void} where unlabelled, in place of NaN"
    if (array != np.rint(array)).any():
        return "scaled or resampled? labels are whole numbers; resize them by the nearest pixel"
    largest = array[array != void].max()
    if largest == 255:
        return "255 for void? void=255 reads it"
    if largest == num_classes and void != 0:
        return "counted from 1, with 0 for void? void=0 reads it"
    return "labels of another set of classes?" if largest >= num_classes else f"void is {void}"


def depth_hint(array: Array) -> str:
    """Of values that are not metres within a room."""
    if not np.isfinite(array).all() or array.min() < 0:
        return "0 where unknown, in place of NaN, infinity or a negative value"
    known = array[array > 0]
    if np.median(known) > 100:
        # Rooms are 1 to 10 m deep: 100 to 1000 cm, 1000 to 10 000 mm.
        return "millimetres? divide by 1000" if np.median(known) > 1000 else "centimetres? divide by 100"
    return 'beyond any room; if these are metres nonetheless, "depth_unit": "metres" in meta.json says so'


def disparity_hint(array: Array) -> str:
    """Of values that are not inverse depth from 0 to 1."""
    if not np.isfinite(array).all() or array.min() < 0:
        return "0 where unknown, in place of NaN, infinity or a negative value"
    if array.max() > 1000:
        return "16-bit disparity? divide by 65536"
    return "metres, or disparity in pixels? this format holds inverse depth, 16-bit disparity / 65536"


def normal_hint(array: Array) -> str:
    """Of values that are not unit vectors."""
    if not np.isfinite(array).all():
        return "(0, 0, 0) where unknown, in place of NaN or infinity"
    if array.min() >= 0:
        scaled = "array / 255" if array.max() > 2 else "array"
        return f"normals as colors? {scaled} * 2 - 1, and (0, 0, 0) where unknown"
    return "divide each vector by its length"
