"""Primitive scenes: boxes, spheres, cylinders, capsules and ellipsoids on the floor of a room, drawn at random.

Every scene is a small MuJoCo model of its own (compiling one takes less than a millisecond). Scene i of a stream
depends on the stream's seed and on i alone.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl_imgrad.scenes.camera import Camera

SHAPES = ("box", "sphere", "cylinder", "capsule", "ellipsoid")
CLASSES = ("floor", "wall", *SHAPES)
HUES = {"red": 0, "orange": 30, "yellow": 58, "green": 120, "cyan": 180, "blue": 225, "purple": 275, "pink": 320}
"""Colour names and their hues in degrees; a thing's own hue lies within 8 degrees of one of them."""

ATTRIBUTES = tuple(f"{colour.title()}_{shape.title()}" for shape in SHAPES for colour in HUES)
"""Forty attributes, such as ``"Red_Box"``: whether a thing of that shape and colour is seen."""

ROOM = """
<mujoco>
  <asset>
    <texture name="tiles" type="2d" builtin="checker" width="128" height="128" rgb1=".9 .9 .9" rgb2=".5 .5 .5"/>
    <material name="tiles" texture="tiles" texrepeat="6 6" rgba="{floor} 1"/>
  </asset>
  <worldbody>
    <light pos="{lamp}" dir="0 0 -1" diffuse=".5 .5 .5" specular=".1 .1 .1" directional="false"/>
    <geom type="plane" size="{half} {half} .1" material="tiles"/>
    {walls}
    {things}
  </worldbody>
</mujoco>
"""


@dataclass(frozen=True)
class PrimitiveScene:
    """A scene, ready to be looked at.

    Attributes:
        model: MuJoCo's model.
        data: Its state, positions up to date.
        camera: Where it is seen from.
        classes: Class of each geom: floor 0, wall 1, then the shapes.
        attributes: Attribute that each geom stands for, -1 for floor and walls.
    """

    model: mujoco.MjModel
    data: mujoco.MjData
    camera: Camera
    classes: npt.NDArray[np.int64]
    attributes: npt.NDArray[np.int64]


def draw_primitives(generator: np.random.Generator) -> PrimitiveScene:
    """Draw a room, four to eight things in it and a camera."""
    half = generator.uniform(2.2, 3.2)
    count = int(generator.integers(4, 9))
    shapes = generator.integers(len(SHAPES), size=count)
    hues = generator.integers(len(HUES), size=count)
    xml = ROOM.format(
        half=half,
        floor=_words(generator.uniform(0.4, 1.0, 3)),
        lamp=_words([*generator.uniform(-1.5, 1.5, 2), 2.4]),
        walls=_walls(generator, half),
        things="\n".join(
            _thing(generator, SHAPES[s], tuple(HUES.values())[h]) for s, h in zip(shapes, hues, strict=True)
        ),
    )
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    camera = Camera(
        target=(*generator.uniform(-0.2, 0.2, 2).tolist(), float(generator.uniform(0.1, 0.35))),
        distance=float(generator.uniform(1.6, 2.1)),
        azimuth=float(generator.uniform(0, 360)),
        elevation=float(generator.uniform(-45, -12)),
    )
    return PrimitiveScene(
        model, data, camera, np.concatenate([[0, 1, 1, 1, 1], 2 + shapes]), _attribute_of(shapes, hues)
    )


def _attribute_of(shapes: npt.NDArray[np.int64], hues: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.full(5, -1), shapes * len(HUES) + hues])


def _walls(generator: np.random.Generator, half: float) -> str:
    walls = []
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        size = (0.05 if x else half, 0.05 if y else half, 1.5)
        grey = generator.uniform(0.35, 0.9) + generator.uniform(-0.1, 0.1, 3)
        walls.append(_geom("box", (x * half, y * half, 1.5), size, grey))
    return "\n".join(walls)


def _thing(generator: np.random.Generator, shape: str, hue: float) -> str:
    """One thing on the floor: boxes turned about the vertical, long ones lying or standing."""
    spot = generator.uniform(-0.85, 0.85, 2)
    a, b, c = generator.uniform(0.12, 0.32, 3)
    lying = bool(generator.integers(2))
    size: tuple[float, ...]
    if shape == "sphere":
        size, height = (a,), a
    elif shape in ("cylinder", "capsule"):
        size = (0.7 * a, b)
        height = size[0] if lying else b + (size[0] if shape == "capsule" else 0.0)
    else:
        size, height = (a, b, c), c
    tilt = 90 if lying and shape in ("cylinder", "capsule") else 0
    turn = generator.uniform(0, 360)
    rgb = colorsys.hsv_to_rgb(
        ((hue + generator.uniform(-8, 8)) % 360) / 360, generator.uniform(0.65, 1.0), generator.uniform(0.55, 0.95)
    )
    return _geom(shape, (*spot, height), size, rgb, (tilt, turn))


def _geom(
    kind: str,
    position: tuple[float, ...],
    size: tuple[float, ...],
    rgb: npt.ArrayLike,
    turned: tuple[float, float] = (0, 0),
) -> str:
    """A geom of the world; ``turned`` are degrees about x, then about the vertical."""
    tilt, turn = np.deg2rad(turned) / 2
    x, z = (np.cos(tilt), np.sin(tilt)), (np.cos(turn), np.sin(turn))
    quaternion = (z[0] * x[0], z[0] * x[1], z[1] * x[1], z[1] * x[0])
    return (
        f'<geom type="{kind}" pos="{_words(position)}" size="{_words(size)}" quat="{_words(quaternion)}" '
        f'rgba="{_words(rgb)} 1"/>'
    )


def _words(numbers: npt.ArrayLike) -> str:
    return " ".join(f"{number:.6f}" for number in np.asarray(numbers, dtype=float))
