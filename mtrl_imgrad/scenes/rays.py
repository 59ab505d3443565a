"""True labels of a MuJoCo scene, by rays: what is seen in each pixel, how far, and how its surface is turned.

No OpenGL is involved. Depth is exact for the model's geometry. The normal comes from three rays, one through
the pixel's centre and two beside it: their hits span the tangent plane, exactly on flat faces and up to the
curvature within `OFFSET` of a pixel elsewhere. (A rasteriser would show the facets of a tessellated sphere.)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl_imgrad.scenes.camera import DRAWN_GROUPS, Camera

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]

BOUND = (1e3, 1e3, 1e3)
"""Half sizes, metres, of a box that holds every scene."""

OFFSET = 1e-3
"""Distance of the rays beside a pixel's centre, in pixels."""


@dataclass(frozen=True)
class Sight:
    """The view of a camera.

    Attributes:
        geom: Index of the geom in each pixel, -1 where there is none, ``[H, W]``.
        depth: Metres along the camera's axis, 0 where there is nothing, ``[H, W]``.
        normal: Outward unit normals in the camera's frame (x right, y up, z towards the viewer), ``[H, W, 3]``;
            (0, 0, 0) where there is nothing and where the three rays meet different geoms.
        direction: Unit directions from the camera to the pixels in its frame, ``[H, W, 3]``.
    """

    geom: IntArray
    depth: FloatArray
    normal: FloatArray
    direction: FloatArray


class RayCaster:
    """Casts rays into a model.

    MuJoCo's ``mj_multiRay`` leaves out geoms by bounds that are too tight: the window of angles between a box's
    corners (mended in MuJoCo 3.5), and the boxes of a body's colliding geoms. Tables have holes then. So rays are cast
    into a copy of the model in which all of these bounds hold the whole scene; they then agree with ``mj_ray``.

    Args:
        model: MuJoCo's model; its geoms' places are taken from the state, its colours and sizes as they are now.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = copy.copy(model)
        self._model.geom_aabb[:] = (0, 0, 0, *BOUND)
        for first, count in zip(self._model.body_bvhadr, self._model.body_bvhnum, strict=True):
            if first >= 0:
                self._model.bvh_aabb[first : first + count] = (0, 0, 0, *BOUND)

    def look(self, data: mujoco.MjData, camera: Camera, height: int, width: int) -> Sight:
        """The view of ``camera`` of a state of the model, positions up to date (``mj_kinematics``)."""
        centre, right, up = (
            self._cast(data, camera, camera.rays(height, width, *offset))
            for offset in ((0, 0), (OFFSET, 0), (0, OFFSET))
        )
        geom, hits, direction = centre
        cross = np.cross(right[1] - hits, up[1] - hits)
        length = np.linalg.norm(cross, axis=-1, keepdims=True)
        known = (geom >= 0) & (geom == right[0]) & (geom == up[0]) & (length[..., 0] > 0)
        normal = np.where(known[..., None], cross / np.where(length > 0, length, 1.0), 0.0)
        return Sight(geom, np.where(geom >= 0, -hits[..., 2], 0.0), normal, direction)

    def _cast(self, data: mujoco.MjData, camera: Camera, rays: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Geoms ``[H, W]``, hits ``[H, W, 3]`` and unit directions in the camera's frame."""
        shape = rays.shape[:2]
        count = shape[0] * shape[1]
        directions = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        geom = np.full(count, -1, dtype=np.int32)
        distance = np.zeros(count)
        world = np.ascontiguousarray(directions @ camera.axes.T).reshape(-1)
        far = float(mujoco.mjMAXVAL)
        mujoco.mj_multiRay(self._model, data, camera.position, world, DRAWN_GROUPS, 1, -1, geom, distance, count, far)
        hits = directions * np.where(geom >= 0, distance, 0.0).reshape(*shape, 1)
        return geom.reshape(shape), hits, directions


def shade(model: mujoco.MjModel, sight: Sight) -> FloatArray:
    """An image of a sight without OpenGL: Lambert's law, a lamp at the camera and one above its left shoulder.

    A textured surface has its texture's mean colour; where there is nothing it is black.

    Returns:
        RGB from 0 to 1, ``[H, W, 3]``.
    """
    lamp = np.array([-0.4, 0.8, 0.45]) / np.linalg.norm([-0.4, 0.8, 0.45])
    headlight = np.clip(-(sight.normal * sight.direction).sum(-1), 0.0, 1.0)
    light = 0.3 + 0.35 * headlight + 0.35 * np.clip(sight.normal @ lamp, 0.0, 1.0)
    image = _geom_colours(model)[sight.geom] * np.where(sight.geom >= 0, light, 0.0)[..., None]
    return np.clip(image, 0.0, 1.0)


def _geom_colours(model: mujoco.MjModel) -> FloatArray:
    colours = np.array(model.geom_rgba[:, :3], dtype=np.float64)
    for geom in np.flatnonzero(model.geom_matid >= 0):
        material = model.geom_matid[geom]
        colours[geom] = model.mat_rgba[material, :3]
        texture = model.mat_texid[material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
        if texture >= 0:
            colours[geom] *= _mean_texel(model, texture)
    return colours


def _mean_texel(model: mujoco.MjModel, texture: int) -> FloatArray:
    channels = int(model.tex_nchannel[texture])
    start = int(model.tex_adr[texture])
    count = int(model.tex_width[texture]) * int(model.tex_height[texture])
    texels = model.tex_data[start : start + count * channels].reshape(count, channels)
    return texels[:, :3].mean(0) / 255
