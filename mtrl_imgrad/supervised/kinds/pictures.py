"""Maps as pictures ``[H, W, 3]`` from 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtrl_imgrad.supervised.masks import IGNORED_LABEL


def classes_picture(labels: Tensor) -> NDArray[Any]:
    """Colours of the classes ``[H, W]``, going round where there are many; black is unlabelled."""
    from mtrl_imgrad.reporting.figures import PALETTE

    colours = np.array([[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in PALETTE])
    picture = colours[labels.numpy() % len(colours)]
    picture[labels.numpy() == IGNORED_LABEL] = 0
    return picture


def depth_picture(depth: Tensor, truth: Tensor) -> NDArray[Any]:
    """Depth ``[H, W]`` from dark (near) to light, with the truth's range; black is unmeasured."""
    from matplotlib import colormaps

    measured = truth[truth > 0]
    low, high = (float(measured.min()), float(measured.max())) if len(measured) else (0.0, 1.0)
    picture = colormaps["viridis"](((depth - low) / max(high - low, 1e-9)).clamp(0, 1).numpy())[..., :3]
    picture[depth.numpy() == 0] = 0
    return picture


def normals_picture(normals: Tensor) -> NDArray[Any]:
    """Normals ``[3, H, W]``: x, y, z as red, green, blue; black is unmeasured."""
    picture = (normals.permute(1, 2, 0).numpy() + 1) / 2
    picture[(normals == 0).all(0).numpy()] = 0
    return picture.clip(0, 1)
