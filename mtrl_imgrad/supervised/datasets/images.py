"""Image files as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mtrl_imgrad.errors import DatasetError

__all__ = ["read_image"]


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture ``[3, H, W]`` from 0 to 1, resized bilinearly without keeping its aspect ratio.

    Args:
        path: of a file that Pillow reads.
        size: H and W.

    Raises:
        DatasetError: if it cannot be read; names the file.
    """
    height, width = size
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).contiguous()
