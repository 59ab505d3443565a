"""Simulated scenes: labels against geometry in closed form, and folders that are made once."""

import colorsys
import json
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from mtrl_imgrad.errors import ArgumentError, DatasetError, MissingDependencyError, UnknownNameError
from mtrl_imgrad.scenes import make, make_scenes, primitives, rendering, robot, sources
from mtrl_imgrad.scenes.camera import DRAWN_GROUPS, Camera
from mtrl_imgrad.scenes.rays import RayCaster, shade
from mtrl_imgrad.supervised.datasets import CelebA, NYUv2

HEIGHT, WIDTH = 48, 64
BALL = """
<mujoco><worldbody>
  <geom type="plane" size="50 50 1" rgba="0 0 1 1"/>
  <geom type="sphere" size=".5" pos=".3 .2 .7" rgba="1 0 0 1"/>
</worldbody></mujoco>
"""


def _state(xml):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return model, data


def _directions(camera, height, width):
    """World directions with unit length along the optical axis, from the pinhole formula."""
    a, e = np.deg2rad([camera.azimuth, camera.elevation])
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.cross(forward, [0, 0, 1]) / np.cos(e)
    up = np.cross(right, forward)
    rows, columns = np.mgrid[:height, :width]
    pixel = 2 * np.tan(np.deg2rad(camera.fovy) / 2) / height
    x, y = (columns - (width - 1) / 2) * pixel, ((height - 1) / 2 - rows) * pixel
    return forward + x[..., None] * right + y[..., None] * up, np.stack([right, up, -forward])


def test_depth_and_normals_of_a_ball_on_a_plane():
    model, data = _state(BALL)
    camera = Camera((0.1, 0.0, 0.5), 3.0, 130.0, -25.0)
    sight = RayCaster(model).look(data, camera, HEIGHT, WIDTH)
    rays, axes = _directions(camera, HEIGHT, WIDTH)
    eye = np.array(camera.target) + 3.0 * axes[2]
    # |eye + t r - c| = radius, nearest root; the plane is z = 0
    centre = np.array([0.3, 0.2, 0.7])
    a, b, c = (rays**2).sum(-1), rays @ (eye - centre), ((eye - centre) ** 2).sum() - 0.25
    root = b**2 - a * c
    ball = root > 0
    t_ball = np.where(ball, (-b - np.sqrt(np.where(ball, root, 0))) / a, np.inf)
    t_plane = np.where(rays[..., 2] < 0, -eye[2] / rays[..., 2], np.inf)
    np.testing.assert_array_equal(sight.geom, np.where(ball, 1, np.where(np.isfinite(t_plane), 0, -1)))
    depth = np.minimum(t_ball, t_plane)
    np.testing.assert_allclose(sight.depth, np.where(np.isfinite(depth), depth, 0), rtol=1e-9)

    outward = (eye + t_ball[ball][:, None] * rays[ball] - centre) / 0.5
    known = np.abs(sight.normal[ball]).sum(-1) > 0
    assert known.mean() > 0.98
    cosines = ((sight.normal[ball] @ axes) * outward).sum(-1)[known]
    assert np.rad2deg(np.arccos(np.clip(cosines, -1, 1))).max() < 1.0
    plane = sight.geom == 0
    np.testing.assert_allclose((sight.normal @ axes)[plane & (sight.normal != 0).any(-1)] - [0, 0, 1], 0, atol=1e-8)
    assert not sight.normal[sight.geom < 0].any()


def test_right_is_right_and_up_is_up():
    model, data = _state('<mujoco><worldbody><geom size=".1" pos="0 .5 .3"/></worldbody></mujoco>')
    looking_along_minus_x = Camera((0.0, 0.0, 0.0), 3.0, 180.0, 0.0)  # y points right
    rows, columns = np.nonzero(RayCaster(model).look(data, looking_along_minus_x, HEIGHT, WIDTH).geom == 0)
    focal = HEIGHT / 2 / np.tan(np.deg2rad(22.5))
    assert columns.mean() - (WIDTH - 1) / 2 == pytest.approx(focal * 0.5 / 3, abs=0.5)
    assert (HEIGHT - 1) / 2 - rows.mean() == pytest.approx(focal * 0.3 / 3, abs=0.5)


def _one_by_one(model, data, camera, height, width):
    rays, axes = _directions(camera, height, width)
    eye = np.array(camera.target) + camera.distance * axes[2]
    found, geom = np.empty((height, width), dtype=int), np.zeros(1, dtype=np.int32)
    for at in np.ndindex(height, width):
        mujoco.mj_ray(model, data, eye, rays[at], DRAWN_GROUPS, 1, -1, geom)
        found[at] = geom[0]
    return found


def test_rays_lose_no_surface():
    # mj_multiRay on the model itself has holes in the walls of this room and in this table.
    room = primitives.draw_primitives(np.random.default_rng([0, 1]))
    expected = _one_by_one(room.model, room.data, room.camera, HEIGHT, WIDTH)
    np.testing.assert_array_equal(RayCaster(room.model).look(room.data, room.camera, HEIGHT, WIDTH).geom, expected)
    task = robot.RobotTask("drawer-open-v3")
    generator = np.random.default_rng(0)
    task.arrange(generator)
    camera = robot.draw_camera(generator)
    expected = _one_by_one(task.model, task.data, camera, HEIGHT, WIDTH)
    np.testing.assert_array_equal(RayCaster(task.model).look(task.data, camera, HEIGHT, WIDTH).geom, expected)
    task.close()


def test_shading_is_brightest_where_light_falls():
    model, data = _state(BALL)
    sight = RayCaster(model).look(data, Camera((0.3, 0.2, 0.7), 3.0, 0.0, -10.0), HEIGHT, WIDTH)
    image = shade(model, sight)
    assert ((image > 0).any(-1) == (sight.geom >= 0)).all()
    assert (image.argmax(-1) == np.choose(sight.geom + 1, [0, 2, 0])).all()
    reds = image[..., 0] * (sight.geom == 1)
    row, _ = np.unravel_index(reds.argmax(), reds.shape)
    rows = np.nonzero(sight.geom == 1)[0]
    assert rows.min() < row < rows.mean()  # the lamps are in front and above


GL_AGAINST_RAYS = f"""
import sys
from mtrl_imgrad.scenes.rendering import GLRenderer, choose_colour
if choose_colour("auto") != "gl":
    sys.exit(77)
import mujoco, numpy as np
from mtrl_imgrad.scenes.camera import Camera
from mtrl_imgrad.scenes.rays import RayCaster
model = mujoco.MjModel.from_xml_string({BALL!r})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
camera = Camera((0.1, 0.0, 0.5), 2.0, 130.0, -15.0, fovy=60.0)
renderer = GLRenderer(model, 96, 128)
image = renderer.render(model, data, camera)
renderer.close()
sight = RayCaster(model).look(data, camera, 96, 128)
seen = np.where(image[..., 0] > image[..., 2], 1, np.where(image[..., 2] > 0, 0, -1))
print((seen == sight.geom).mean(), *np.bincount(sight.geom.ravel() + 1) / sight.geom.size)
"""


def _python(code):
    env = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_opengl_sees_what_rays_see():
    done = _python(GL_AGAINST_RAYS)
    if done.returncode == 77:
        pytest.skip("no OpenGL here")
    assert done.returncode == 0, done.stderr
    agreement, *shares = map(float, done.stdout.split())
    assert min(shares) > 0.05
    assert agreement > 0.99


def test_colour_is_chosen_by_what_works(monkeypatch):
    assert rendering.choose_colour("rays") == "rays"
    monkeypatch.setattr(rendering, "_working_backend", lambda: None)
    assert rendering.choose_colour("auto") == "rays"
    with pytest.raises(MissingDependencyError, match="MUJOCO_GL"):
        rendering.choose_colour("gl")
    monkeypatch.setattr(rendering, "_working_backend", lambda: "")
    assert rendering.choose_colour("auto") == rendering.choose_colour("gl") == "gl"
    with pytest.raises(UnknownNameError, match="source of colour"):
        rendering.choose_colour("paint")


def test_a_disabled_backend_is_found_out(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    assert rendering._working_backend.__wrapped__() is None


def test_things_are_what_their_names_say():
    kinds = {"box": "BOX", "sphere": "SPHERE", "cylinder": "CYLINDER", "capsule": "CAPSULE", "ellipsoid": "ELLIPSOID"}
    for seed in range(20):
        scene = primitives.draw_primitives(np.random.default_rng(seed))
        assert (scene.attributes[:5] == -1).all()
        assert scene.classes[:5].tolist() == [0, 1, 1, 1, 1]
        for geom in range(5, scene.model.ngeom):
            colour, shape = primitives.ATTRIBUTES[scene.attributes[geom]].lower().split("_")
            assert primitives.CLASSES[scene.classes[geom]] == shape
            assert scene.model.geom_type[geom] == getattr(mujoco.mjtGeom, f"mjGEOM_{kinds[shape]}")
            hue = 360 * colorsys.rgb_to_hsv(*scene.model.geom_rgba[geom, :3])[0]
            away = (hue - primitives.HUES[colour] + 180) % 360 - 180
            assert abs(away) < 8.01


def test_an_attribute_is_there_if_enough_pixels_are():
    source = sources.PrimitiveSource(sources.SourceConfig(HEIGHT, WIDTH, 3, "rays"))
    for index in range(5):
        scene = primitives.draw_primitives(np.random.default_rng(np.random.SeedSequence(3, spawn_key=(1, index))))
        sight = RayCaster(scene.model).look(scene.data, scene.camera, HEIGHT, WIDTH)
        expected = set()
        for geom in range(5, scene.model.ngeom):
            if (sight.geom == geom).sum() >= 0.003 * HEIGHT * WIDTH:
                expected.add(int(scene.attributes[geom]))
        assert set(np.flatnonzero(source.attributes(1, index).attributes)) == expected
        assert expected


def test_classes_follow_from_the_tree_of_bodies():
    model = mujoco.MjModel.from_xml_string("""
    <mujoco><worldbody>
      <body name="tablelink"><geom size=".1"/></body>
      <body name="base"><body name="right_l0"><joint/><geom size=".1"/>
        <body name="right_hand"><body name="hand"><geom size=".1"/></body></body></body></body>
      <body name="box"><body name="frame"><geom size=".1"/></body>
        <body name="lid"><joint/><geom size=".1"/><body name="knob"><geom size=".1"/></body></body></body>
      <body name="RetainingWall"><geom size=".1"/></body>
    </worldbody></mujoco>""")
    found = {model.body(i).name: robot.CLASSES[c] for i, c in enumerate(robot.body_classes(model))}
    assert found == {
        "world": "floor",
        "tablelink": "table",
        "base": "arm",
        "right_l0": "arm",
        "right_hand": "gripper",
        "hand": "gripper",
        "box": "fixture",
        "frame": "fixture",
        "lid": "movable object",
        "knob": "movable object",
        "RetainingWall": "retaining wall",
    }


def _bytes(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.suffix in (".npy", ".jpg")}


def _make(kind, root, **changed):
    options = {"counts": {"train": 3, "val": 2}, "height": HEIGHT, "width": WIDTH, "colour": "rays"}
    return make_scenes(kind, root, **{**options, "progress_bar": False, **changed})


def test_primitives_are_determined_by_the_seed(tmp_path):
    first = _bytes(_make("primitives", tmp_path / "a"))
    assert len(first) == 5 * 4
    assert _bytes(_make("primitives", tmp_path / "b")) == first
    longer = _bytes(_make("primitives", tmp_path / "c", counts={"val": 3, "train": 4}))
    assert {name: longer[name] for name in first} == first
    other = _bytes(_make("primitives", tmp_path / "d", seed=1))
    assert all(other[name] != content for name, content in first.items())
    assert len(set(first.values())) == len(first)


@pytest.fixture(scope="module")
def mt10(tmp_path_factory):
    counts = {"train": 1, "val": 10}
    return _make("mt10", tmp_path_factory.mktemp("scenes") / "mt10", counts=counts, height=72, width=96)


def test_mt10_scenes_show_every_class_and_hold_together(mt10):
    data = NYUv2(mt10, "val")
    assert data.class_names == robot.CLASSES
    assert [task.channels for task in data.tasks] == [7, 1, 3]
    seen = set()
    rays, axes = _directions(Camera((0, 0, 0), 1.0, 0.0, 0.0), 72, 96)
    rays = rays @ axes.T  # in the camera's frame
    for _, targets in (data[index] for index in range(10)):
        label, depth, normal = targets["segmentation"].numpy(), targets["depth"][0].numpy(), targets["normal"].numpy()
        seen |= set(np.unique(label).tolist())
        assert ((label == -1) == (depth == 0)).all()
        known = (normal != 0).any(0)
        assert not known[label == -1].any()
        assert known[label >= 0].mean() > 0.95
        floor = (label == 0) & known
        points, directions = (rays * depth[..., None])[floor], normal[:, floor].T
        if len(points):
            np.testing.assert_allclose(directions - directions[0], 0, atol=1e-5)
            heights = points @ directions[0]
            np.testing.assert_allclose(heights, heights[0], atol=1e-4)
    assert seen == {-1, 0, 1, 2, 3, 4, 5, 6}


def test_an_mt10_scene_does_not_depend_on_those_before(mt10):
    source = sources.RobotSource(sources.SourceConfig(72, 96, 0, "rays"))
    for index in (5, 15, 5):
        sample = source.dense(1, index)
    source.close()
    stored = {name: np.load(mt10 / "val" / name / "5.npy") for name in ("label", "depth", "image")}
    np.testing.assert_array_equal(sample.label, stored["label"])
    np.testing.assert_array_equal(sample.depth.astype(np.float32), stored["depth"][..., 0])
    np.testing.assert_array_equal(sample.image.astype(np.float32), stored["image"])


def test_attributes_are_read_as_celeba(tmp_path):
    root = _make("attributes", tmp_path / "set", counts={"train": 4, "test": 1})
    data = CelebA(root, "train")
    assert data.attribute_names == primitives.ATTRIBUTES
    assert len(data.attribute_names) == 40
    source = sources.PrimitiveSource(sources.SourceConfig(HEIGHT, WIDTH, 0, "rays"))
    assert data.labels[2].tolist() == source.attributes(0, 2).attributes.tolist()
    assert CelebA(root, "test")[0][0].shape == (3, 64, 64)


def test_a_folder_is_made_once(tmp_path, monkeypatch):
    root = _make("primitives", tmp_path / "deep" / "set")
    meta = json.loads((root / "meta.json").read_text())
    assert meta["simulated"] is True
    assert meta["classes"] == list(primitives.CLASSES)
    assert meta["recipe"] == {
        "kind": "primitives",
        "counts": {"train": 3, "val": 2},
        "height": HEIGHT,
        "width": WIDTH,
        "seed": 0,
        "version": make.VERSION,
        "colour": "rays",
    }
    assert [path.name for path in root.parent.iterdir()] == ["set"]

    monkeypatch.setattr(make, "_write", lambda *_: pytest.fail("made again"))
    assert _make("primitives", root) == root
    assert _make("primitives", root, colour="auto") == root
    for name, changed in (("seed", {"seed": 1}), ("counts", {"counts": {"val": 2}}), ("colour", {"colour": "gl"})):
        with pytest.raises(DatasetError, match=rf"was made with {name} .*choose another folder"):
            _make("primitives", root, **changed)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match="holds something else"):
        _make("primitives", tmp_path / "other")


def test_an_interrupted_making_leaves_nothing(tmp_path, monkeypatch):
    draw = sources.PrimitiveSource.dense

    def interrupted(self, split, index):
        if (split, index) == (1, 1):
            raise KeyboardInterrupt
        return draw(self, split, index)

    monkeypatch.setattr(sources.PrimitiveSource, "dense", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _make("primitives", tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"counts": {"dev": 3}}, "counts"),
        ({"counts": {"val": 0}}, "counts"),
        ({"height": -1}, "height and width"),
        ({"seed": -1}, "seed"),
        ({"colour": "paint"}, "source of colour"),
    ],
)
def test_arguments_are_checked(tmp_path, changed, message):
    with pytest.raises(ArgumentError, match=message):
        _make("primitives", tmp_path / "set", **changed)
    with pytest.raises(UnknownNameError, match="kind of scenes 'primitive'. Did you mean 'primitives'"):
        _make("primitive", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_progress_says_what_is_made(tmp_path, capsys):
    _make("primitives", tmp_path / "set", progress_bar=True)
    printed = capsys.readouterr().out
    assert "primitives, colour from rays" in printed
    assert "5/5" in printed
