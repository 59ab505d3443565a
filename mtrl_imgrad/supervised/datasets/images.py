"""Image files as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mtrl_imgrad.errors import DatasetError


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture ``[3, H, W]`` from 0 to 1, resized bilinearly without keeping its aspect ratio.

    Args:
        path: of a file that Pillow reads.
        size: H and W.

    Raises:
        DatasetError: if it cannot be read; names the file.
    """
    with open_image(path) as image:
        pixels = np.array(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).contiguous()


def read_pixels(path: Path) -> npt.NDArray[np.float32]:
    """A picture ``[H, W, 3]`` from 0 to 1, of its own size.

    Raises:
        DatasetError: if it cannot be read; names the file.
    """
    with open_image(path) as image:
        return np.array(image.convert("RGB")).astype(np.float32) / np.float32(255)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """A picture as the file has it; its pixels are read within the block.

    Raises:
        DatasetError: if it cannot be read; names the file.
    """
    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
