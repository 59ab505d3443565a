"""Cameras of scenes. Rays and OpenGL take the same camera; nothing here imports MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

DRAWN_GROUPS = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)
"""Groups of geoms that are seen; MuJoCo's viewer draws the same ones. Others are for collisions only."""


@dataclass(frozen=True)
class Camera:
    """A camera that looks at a point, upright.

    Attributes:
        target: The point, metres, world frame.
        distance: From it, metres.
        azimuth: Direction of view about the vertical, degrees; 0 looks along x, 90 along y.
        elevation: Direction of view above the horizon, degrees; negative looks down.
        fovy: Vertical field of view, degrees.
    """

    target: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
    fovy: float = 45.0

    @property
    def axes(self) -> FloatArray:
        """Columns: the camera's x (right), y (up) and z (towards the viewer) in the world's frame."""
        a, e = np.deg2rad([self.azimuth, self.elevation])
        forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        return np.stack([right, np.cross(right, forward), -forward], axis=1)

    @property
    def position(self) -> FloatArray:
        """Its position, metres, world frame."""
        return np.array(self.target) + self.distance * self.axes[:, 2]

    def rays(self, height: int, width: int, right: float = 0.0, up: float = 0.0) -> FloatArray:
        """Directions of view in the camera's frame, ``[H, W, 3]`` with z = -1, through points beside the centres.

        Args:
            height: Pixels.
            width: Pixels.
            right: How far right of the pixels' centres, in pixels.
            up: How far above them, in pixels.
        """
        focal = 0.5 * height / np.tan(np.deg2rad(self.fovy) / 2)
        x = (np.arange(width) + 0.5 - width / 2 + right) / focal
        y = (height / 2 - np.arange(height) - 0.5 + up) / focal
        return np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], axis=-1)
