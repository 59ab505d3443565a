"""Pictures of the environments that a film is made of: Meta-World's by MuJoCo, the toy's drawn, others' their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError, UnknownNameError
from mtrl_imgrad.reporting.films import Frame
from mtrl_imgrad.scenes.rendering import choose_colour

UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
"""Cameras that Meta-World has mounted upside down; their pictures are turned by half a turn."""


class View(Protocol):
    """A renderer of an environment's rows."""

    def render(self, observations: npt.NDArray[Any], rows: Sequence[int]) -> list[Frame]:
        """A picture ``[size, size, 3]`` of each of the rows."""

    def close(self) -> None:
        """Give everything back."""


def prepare_rendering() -> None:
    """Choose what OpenGL runs on, EGL or OSMesa, unless ``MUJOCO_GL`` says so; before mujoco is first imported.

    Raises:
        MissingDependencyError: if none works, with what to install.
    """
    try:
        choose_colour("gl")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            "nothing here renders MuJoCo's pictures: install a driver for EGL, or OSMesa (Debian, Ubuntu: apt install "
            "libosmesa6), and leave MUJOCO_GL unset or set it to egl or osmesa before starting Python"
        ) from error


def view_of(env: MultiTaskVecEnv, camera: str | None, size: int) -> View:
    """The view that fits a back-end.

    Raises:
        ArgumentError: if the back-end has no pictures, or no cameras to choose from.
        UnknownNameError: if there is no such camera.
    """
    if env.backend == "metaworld":
        return _MuJoCo(env, camera or "corner2", size)
    if camera is not None:
        raise ArgumentError(f"camera={camera!r}: only Meta-World's simulator has cameras, this one is {env.backend!r}")
    if env.backend == "toy":
        return _Toy(size)
    if not env.num_envs or env.get_images()[0] is None:
        raise ArgumentError(f"the simulator {env.backend!r} makes no pictures")
    return _Own(env, size)


class _MuJoCo:
    """A renderer for each environment that is filmed: their models differ."""

    def __init__(self, env: MultiTaskVecEnv, camera: str, size: int) -> None:
        self._models, self._data = env.get_attr("model"), env.get_attr("data")
        model = self._models[0]
        known = [model.camera(i).name for i in range(model.ncam)]
        if camera not in known:
            raise UnknownNameError("camera", camera, known)
        self._camera, self._size = camera, size
        self._renderers: dict[int, Any] = {}

    def render(self, observations: npt.NDArray[Any], rows: Sequence[int]) -> list[Frame]:
        return [self._picture(row) for row in rows]

    def _picture(self, row: int) -> Frame:
        import mujoco

        if row not in self._renderers:
            model = self._models[row]
            model.vis.global_.offwidth = model.vis.global_.offheight = self._size
            self._renderers[row] = mujoco.Renderer(model, self._size, self._size)
        renderer = self._renderers[row]
        renderer.update_scene(self._data[row], self._camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # five times faster in software
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        picture: Frame = renderer.render()
        return picture[::-1, ::-1].copy() if self._camera in UPSIDE_DOWN else picture.copy()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()


class _Toy:
    """The square of toy-reach: the goal as a ring, the point as a disc."""

    def __init__(self, size: int) -> None:
        self._size = size

    def render(self, observations: npt.NDArray[Any], rows: Sequence[int]) -> list[Frame]:
        return [self._picture(*observations[row, :4].tolist()) for row in rows]

    def _picture(self, x: float, y: float, goal_x: float, goal_y: float) -> Frame:
        image = Image.new("RGB", (self._size, self._size), (245, 245, 245))
        draw, radius = ImageDraw.Draw(image), self._size / 24
        for (u, v), style in (((goal_x, goal_y), {"outline": (204, 51, 17)}), ((x, y), {"fill": (0, 114, 178)})):
            at = (radius + (self._size - 2 * radius) * (1 + u) / 2, radius + (self._size - 2 * radius) * (1 - v) / 2)
            draw.circle(at, radius * (1.4 if "outline" in style else 1), width=2, **style)
        return np.asarray(image)

    def close(self) -> None:
        pass


class _Own:
    """Pictures that environments render themselves."""

    def __init__(self, env: MultiTaskVecEnv, size: int) -> None:
        self._env, self._size = env, size

    def render(self, observations: npt.NDArray[Any], rows: Sequence[int]) -> list[Frame]:
        images = self._env.get_images()
        return [np.asarray(Image.fromarray(np.asarray(images[row])).resize((self._size,) * 2)) for row in rows]

    def close(self) -> None:
        pass
