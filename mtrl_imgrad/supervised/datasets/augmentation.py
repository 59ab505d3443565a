"""The augmentation that every paper since MTAN's uses on NYUv2 and CityScapes: zoom into a crop, and mirror.

Drawing and applying are apart: `draw_view` takes numbers from a generator, `apply_view` is a pure function.

What ``protocol="paper"`` keeps of the published code and ``"fixed"`` mends:

- Zooming in by s makes things s times nearer. Depth is divided by s; inverse depth has to be *multiplied* by it, and
  the published CityScapes loaders divide it as well.
- Bilinear resampling shortens normals at edges and blends them with the (0, 0, 0) of unknown pixels. Mended, a pixel
  is known where more than half of its weight is on known pixels, and its normal has length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.protocol import Protocol

SCALES = (1.0, 1.2, 1.5)
"""Zooms, drawn with equal probability (MTAN's code)."""


@dataclass(frozen=True)
class View:
    """A crop of an image that is resized back to the whole, and perhaps mirrored.

    Attributes:
        scale: Zoom; depth changes with it.
        top: First row of the crop.
        left: First column of the crop.
        height: Rows of the crop.
        width: Columns of the crop.
        flip: Whether left and right are swapped.
    """

    scale: float
    top: int
    left: int
    height: int
    width: int
    flip: bool


def draw_view(height: int, width: int, generator: torch.Generator) -> View:
    """Draw a view of an image: scale from `SCALES`, the crop's place uniformly, a mirror image with probability 1/2."""
    if min(height, width) < 1:
        raise ArgumentError(f"height and width must be positive, got {height} and {width}")

    def below(bound: int) -> int:
        return int(torch.randint(bound, (), generator=generator))

    scale = SCALES[below(len(SCALES))]
    rows, columns = int(height / scale), int(width / scale)
    return View(scale, below(height - rows + 1), below(width - columns + 1), rows, columns, below(2) == 1)


def apply_view(
    layers: Mapping[str, Tensor], view: View, *, inverse_depth: bool = False, protocol: Protocol = "fixed"
) -> dict[str, Tensor]:
    """Every layer as ``view`` shows it.

    Args:
        layers: Floating tensors ``[C, H, W]`` by name: ``"image"`` and ``"normal"`` are resampled bilinearly (corners
            aligned), ``"segmentation"`` and ``"depth"`` by the nearest pixel.
        view: The crop, its zoom and whether to mirror it.
        inverse_depth: Whether ``"depth"`` holds inverse depth (disparity).
        protocol: ``"paper"`` keeps the quirks named above.

    Returns:
        Layers of the same shapes.
    """
    seen = {name: _mirror(_zoom(name, layer, view), name, view.flip) for name, layer in layers.items()}
    if "depth" in seen:
        grows = inverse_depth and protocol == "fixed"
        seen["depth"] = seen["depth"] * view.scale if grows else seen["depth"] / view.scale
    if "normal" in seen and protocol == "fixed" and view.scale != 1:
        known = (layers["normal"] != 0).any(0, keepdim=True).to(seen["normal"].dtype)
        share = _mirror(_zoom("normal", known, view), "mask", view.flip)
        seen["normal"] = _unit(seen["normal"], share)
    return seen


def _zoom(name: str, layer: Tensor, view: View) -> Tensor:
    size = (layer.shape[-2], layer.shape[-1])
    crop = layer[:, view.top : view.top + view.height, view.left : view.left + view.width]
    if crop.shape[-2:] == size:
        return crop
    if name in ("image", "normal"):
        return interpolate(crop[None], size, mode="bilinear", align_corners=True)[0]
    return interpolate(crop[None], size, mode="nearest")[0]


def _mirror(layer: Tensor, name: str, flip: bool) -> Tensor:
    if not flip:
        return layer
    mirrored = layer.flip(-1)
    if name == "normal":
        mirrored = mirrored * mirrored.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    return mirrored


def _unit(normals: Tensor, share_known: Tensor) -> Tensor:
    length = normals.norm(dim=0, keepdim=True)
    known = (share_known > 0.5) & (length > 1e-3)  # opposite normals cancel: no direction is left
    return torch.where(known, normals / length.clamp(min=1e-3), 0.0)
