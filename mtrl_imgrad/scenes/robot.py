"""MT10 scenes: the robot and the things of Meta-World's ten tasks, as they stand during an episode.

Sample i shows task i modulo 10 after a reset with a goal of its own and a few random moves of the hand, from a random
camera near the table. Classes follow from the tree of bodies: a thing that hangs on a joint is movable, one
that does not is a fixture.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("mt10 scenes", "metaworld")

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl_imgrad.envs.backends.metaworld_rows import build_environment, draw_task_vector, set_task_vector
from mtrl_imgrad.scenes.camera import Camera

CLASSES = ("floor", "retaining wall", "table", "arm", "gripper", "movable object", "fixture")

STRUCTURE = {
    "world": "floor",
    "RetainingWall": "retaining wall",
    "tablelink": "table",
    "base": "arm",
    "right_hand": "gripper",
}
"""Class of the bodies below each of these, the nearest one deciding; ``world`` counts for its own geoms only."""

MOVES, STEPS_A_MOVE = 3, 6
GLASS = 0.5
"""Surfaces less opaque than this are left out: one sees through them, and rays would stop at them."""


class RobotTask:
    """One task's environment, to be put into states.

    Args:
        name: Full name, such as ``"reach-v3"``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._env: Any = build_environment(name)
        self.model: mujoco.MjModel = self._env.model
        self.data: mujoco.MjData = self._env.data
        self.model.mat_rgba[self.model.mat_rgba[:, 3] < GLASS, 3] = 0
        self.classes = body_classes(self.model)[self.model.geom_bodyid]

    def arrange(self, generator: np.random.Generator) -> None:
        """Reset with a new goal and move the hand a little, all drawn from ``generator``."""
        mujoco.mj_resetData(self.model, self.data)  # nothing of the scene before: not even the solver's warm start
        set_task_vector(self._env, self.name, draw_task_vector(self._env, generator))
        self._env.reset()
        for _ in range(MOVES):
            action = generator.uniform(-1, 1, 4).astype(np.float32)
            for _ in range(STEPS_A_MOVE):
                self._env.step(action)
        mujoco.mj_forward(self.model, self.data)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def body_classes(model: mujoco.MjModel) -> npt.NDArray[np.int64]:
    """Class of every body, as an index into `CLASSES`."""
    classes = np.empty(model.nbody, dtype=np.int64)
    for body in range(model.nbody):
        path = _path_to_world(model, body)
        names = [model.body(link).name for link in path]
        thing = "movable object" if any(model.body_jntnum[link] for link in path) else "fixture"
        classes[body] = CLASSES.index(next((STRUCTURE[name] for name in names if name in STRUCTURE), thing))
    return classes


def _path_to_world(model: mujoco.MjModel, body: int) -> list[int]:
    """``body`` and those above it, without the world unless it is the body itself."""
    path = [body]
    while model.body_parentid[path[-1]] != 0:
        path.append(int(model.body_parentid[path[-1]]))
    return path


def draw_camera(generator: np.random.Generator) -> Camera:
    """A camera that looks at the table's middle from any side but the robot's (which stands before y = 0)."""
    return Camera(
        target=(
            float(generator.uniform(-0.15, 0.15)),
            float(generator.uniform(0.55, 0.75)),
            float(generator.uniform(0.0, 0.15)),
        ),
        distance=float(generator.uniform(0.8, 1.3)),
        azimuth=90 + float(generator.uniform(55, 305)),
        elevation=float(generator.uniform(-60, -20)),
    )
