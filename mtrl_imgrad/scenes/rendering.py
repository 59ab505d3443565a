"""Colour by OpenGL, where this machine has it.

MuJoCo chooses its back-end of OpenGL when it is first imported, by the environment variable ``MUJOCO_GL``, and a
back-end that does not work may end the process. So candidates are tried in a process of their own, once.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mtrl_imgrad.errors import MissingDependencyError, UnknownNameError
from mtrl_imgrad.scenes.camera import DRAWN_GROUPS, Camera

Colour = Literal["gl", "rays"]

COLOURS = ("auto", "gl", "rays")

HEADLESS = ("egl", "osmesa")
"""Back-ends to try, in this order, where the user has chosen none and there is no display."""

PROBE = """
import mujoco
context = mujoco.gl_context.GLContext(16, 16)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
print("renders")
"""


def choose_colour(colour: str) -> Colour:
    """Decide where colour comes from.

    Where ``MUJOCO_GL`` is unset, MuJoCo is not yet imported and there is no display, this sets the variable to the
    first back-end that works, for the rest of the process.

    Args:
        colour: ``"gl"``, ``"rays"``, or ``"auto"`` for OpenGL where it works and rays where not.

    Raises:
        MissingDependencyError: ``"gl"`` was asked for and OpenGL does not work.
        UnknownNameError: ``colour`` is none of these.
    """
    if colour not in COLOURS:
        raise UnknownNameError("source of colour", colour, COLOURS)
    if colour == "rays":
        return "rays"
    backend = _working_backend()
    if backend is not None:
        if backend:
            os.environ["MUJOCO_GL"] = backend
        return "gl"
    if colour == "gl":
        raise MissingDependencyError(
            "colour='gl': OpenGL does not work here; set MUJOCO_GL=egl, or osmesa (Debian: libosmesa6), before "
            "starting Python, or take colour='rays'"
        )
    return "rays"


@functools.cache
def _working_backend() -> str | None:
    """The first value of ``MUJOCO_GL`` that renders, ``""`` for MuJoCo's own choice; None if none does."""
    chosen = os.environ.get("MUJOCO_GL", "")
    free = not chosen and "mujoco" not in sys.modules and sys.platform == "linux" and "DISPLAY" not in os.environ
    for backend in HEADLESS if free else (chosen,):
        try:
            probe = subprocess.run(
                [sys.executable, "-c", PROBE],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "MUJOCO_GL": backend},
            )
        except subprocess.TimeoutExpired:
            continue
        if "renders" in probe.stdout:
            return backend
    return None


class GLRenderer:
    """Draws models that share textures and meshes (they are handed to OpenGL once, from the first model).

    No shadows and no multi-sampling: labels have hard edges, and software rendering is five times faster without.

    Args:
        model: The first model.
        height: Pixels.
        width: Pixels.
    """

    def __init__(self, model: Any, height: int, width: int) -> None:
        import mujoco
        from mujoco.gl_context import GLContext

        self._mujoco = mujoco
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        model.vis.quality.offsamples = 0
        self._gl = GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = DRAWN_GROUPS
        self._options.sitegroup[:] = 0

    def render(self, model: Any, data: Any, camera: Camera) -> npt.NDArray[np.float64]:
        """An image ``[H, W, 3]``, RGB from 0 to 1, of a scene whose positions are up to date."""
        mujoco, (height, width) = self._mujoco, self._pixels.shape[:2]
        self._gl.make_current()
        model.vis.global_.fovy = camera.fovy
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FREE
        view.lookat[:] = camera.target
        view.distance, view.azimuth, view.elevation = camera.distance, camera.azimuth, camera.elevation
        every = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(model, data, self._options, None, view, every, self._scene)
        area = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, area, self._context)
        return self._pixels[::-1] / 255.0  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Give back what OpenGL holds."""
        self._context.free()
        self._gl.free()
