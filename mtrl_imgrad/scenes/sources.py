"""Sources of scenes: what a camera sees of scene number i, in colour and with its labels.

A scene depends on the seed, its split and its index alone, so a larger set begins with the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl_imgrad.envs.registry import resolve_tasks
from mtrl_imgrad.scenes.camera import Camera
from mtrl_imgrad.scenes.primitives import ATTRIBUTES, PrimitiveScene, draw_primitives
from mtrl_imgrad.scenes.rays import RayCaster, Sight, shade
from mtrl_imgrad.scenes.rendering import Colour, GLRenderer
from mtrl_imgrad.scenes.robot import RobotTask, draw_camera
from mtrl_imgrad.seeding import Stream, numpy_generator
from mtrl_imgrad.supervised.datasets.writers import AttributeSample, DenseSample

MIN_SHARE = 0.003
"""Share of the image's pixels from which on a thing counts as seen."""


@dataclass(frozen=True)
class SourceConfig:
    """The settings of all sources.

    Attributes:
        height: Pixels.
        width: Pixels.
        seed: That scenes are drawn from.
        colour: Where colour comes from.
    """

    height: int
    width: int
    seed: int
    colour: Colour

    def generator(self, split: int, index: int) -> np.random.Generator:
        """Generator of one scene."""
        return numpy_generator(self.seed, Stream.SCENES, split, index)


class PrimitiveSource:
    """Primitive scenes, with labels or with attributes."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._painter = _Painter(config)

    def dense(self, split: int, index: int) -> DenseSample:
        """Scene ``index`` of split number ``split``, with its labels."""
        scene, sight, image = self._view(split, index)
        return _dense_sample(sight, image, scene.classes)

    def attributes(self, split: int, index: int) -> AttributeSample:
        """Scene ``index`` of split number ``split``, with its attributes."""
        scene, sight, image = self._view(split, index)
        pixels = np.bincount(sight.geom[sight.geom >= 0], minlength=scene.model.ngeom)
        seen = scene.attributes[(pixels >= MIN_SHARE * sight.geom.size) & (scene.attributes >= 0)]
        present = np.zeros(len(ATTRIBUTES), dtype=np.bool_)
        present[seen] = True
        return AttributeSample(np.rint(image * 255).astype(np.uint8), present)

    def _view(self, split: int, index: int) -> tuple[PrimitiveScene, Sight, npt.NDArray[np.float64]]:
        scene = draw_primitives(self._config.generator(split, index))
        return scene, *self._painter.view(RayCaster(scene.model), scene.model, scene.data, scene.camera)

    def close(self) -> None:
        """Give back what OpenGL holds."""
        self._painter.close()


class RobotSource:
    """MT10 scenes; sample i shows task i modulo 10. Environments are built when first needed."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._names = resolve_tasks("MT10")
        self._tasks: dict[str, tuple[RobotTask, RayCaster, _Painter]] = {}

    def dense(self, split: int, index: int) -> DenseSample:
        """Scene ``index`` of split number ``split``, with its labels."""
        task, caster, painter = self._task(self._names[index % len(self._names)])
        generator = self._config.generator(split, index)
        task.arrange(generator)
        sight, image = painter.view(caster, task.model, task.data, draw_camera(generator))
        return _dense_sample(sight, image, task.classes)

    def _task(self, name: str) -> tuple[RobotTask, RayCaster, _Painter]:
        if name not in self._tasks:
            task = RobotTask(name)
            self._tasks[name] = (task, RayCaster(task.model), _Painter(self._config))
        return self._tasks[name]

    def close(self) -> None:
        """Close the environments and give back what OpenGL holds."""
        for task, _, painter in self._tasks.values():
            painter.close()
            task.close()
        self._tasks.clear()


class _Painter:
    """Colour of a sight, by OpenGL or from its rays; one for models that share textures and meshes."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._renderer: GLRenderer | None = None

    def view(
        self, caster: RayCaster, model: mujoco.MjModel, data: mujoco.MjData, camera: Camera
    ) -> tuple[Sight, npt.NDArray[np.float64]]:
        height, width = self._config.height, self._config.width
        sight = caster.look(data, camera, height, width)
        if self._config.colour == "rays":
            return sight, shade(model, sight)
        if self._renderer is None:
            self._renderer = GLRenderer(model, height, width)
        return sight, self._renderer.render(model, data, camera)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _dense_sample(sight: Sight, image: npt.NDArray[np.float64], classes: npt.NDArray[np.int64]) -> DenseSample:
    label = np.where(sight.geom >= 0, classes[sight.geom], -1)
    return DenseSample(image, label, sight.depth, sight.normal)
