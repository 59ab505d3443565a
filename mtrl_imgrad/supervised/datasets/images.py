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
        DatasetError: if it cannot be read, or is not of 8 bits a channel; names the file.
    """
    with open_image(path) as image:
        pixels = np.array(_in_colours(image, path).resize(size[::-1], Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).contiguous()


def read_pixels(path: Path) -> npt.NDArray[np.float32]:
    """A picture ``[H, W, 3]`` from 0 to 1, of its own size.

    Raises:
        DatasetError: if it cannot be read, or is not of 8 bits a channel; names the file.
    """
    with open_image(path) as image:
        return np.array(_in_colours(image, path)).astype(np.float32) / np.float32(255)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """A picture as the file has it; its pixels are read within the block.

    Raises:
        DatasetError: if it cannot be read; names the file.
    """
    try:
        with Image.open(path) as image:
            yield image
    except DatasetError:
        raise
    except Exception as error:  # Pillow raises what it likes for a damaged file
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error


def _in_colours(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow's conversion cuts 16 bits at 255: all white
        raise DatasetError(f"{path}: a picture of mode {image.mode}; expected 8 bits a channel; save it so")
    return image.convert("RGB")
