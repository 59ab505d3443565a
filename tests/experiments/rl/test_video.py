import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, MissingDependencyError
from mtrl_imgrad.experiments.rl import views
from mtrl_imgrad.experiments.rl.video import film
from mtrl_imgrad.reporting.films import GREEN, caption, save_film, tile

pytest.importorskip("imageio_ffmpeg")
pytestmark = [  # imageio leaves the pipes of a film that was read to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRAIN = (
    "--total-timesteps 40 --learning-starts 20 --net-arch 4 --batch-size 8 --eval-freq 0 --eval-episodes 1 "
    "--final-episodes 1 --checkpoint-every 0 --no-progress-bar"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    assert main(["train", "--env", "toy-reach", *TRAIN, "--run-dir", str(folder)]) == 0
    return folder


class Best:
    """The best policy of the toy."""

    def __init__(self, env):
        self.env = env

    def predict(self, observation, deterministic=True):
        return self.env.optimal_action(observation), None


@pytest.mark.parametrize("name", ["film.mp4", "new/film.gif"])
def test_all_tasks_side_by_side(run, tmp_path, name):
    assert main(["video", str(run), "--out", str(tmp_path / name), "--size", "60", "--every", "5"]) == 0
    frames = iio.imread(tmp_path / name)
    assert frames.shape[1:] == (76, 240, 3)
    assert len(frames) == 6 if name.endswith("mp4") else 2 <= len(frames) <= 6  # a gif merges equal frames
    assert sorted(tmp_path.rglob("*.tmp*")) == []


def test_one_task_and_another_seed(run, tmp_path, capsys):
    options = ["--task", "toy-reach/left", "--seed", "5", "--size", "60", "--out", str(tmp_path / "a.gif")]
    assert main(["video", str(run), *options]) == 0
    assert iio.imread(tmp_path / "a.gif").shape[1:] == (76, 60, 3)
    assert "seed 5 on toy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.avi"], "out must end in .mp4 or .gif"),
        (["--out", "a.gif", "--task", "toy-reach/lefft"], "Did you mean 'toy-reach/left'"),
        (["--out", "a.gif", "--camera", "corner2"], "only Meta-World's simulator has cameras"),
        (["--out", "a.gif", "--size", "61"], "size must be even"),
    ],
)
def test_wrong_options_end_with_2(run, options, message, capsys):
    assert main(["video", str(run), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_success_is_seen_and_ends_a_film_where_asked():
    env = make_vec_env("toy-reach", seed=0)
    view = views.view_of(env, None, 60)
    frames, done = film(Best(env), env, view, range(4), every=1, until_success=True)
    assert done == env.task_names
    assert len(frames) <= 26
    corners = frames[-1][1, [1 + 60 * k for k in range(4)]]
    np.testing.assert_array_equal(corners, [GREEN] * 4)
    assert not (frames[0] == GREEN).all(axis=-1).any()


def test_the_film_shows_the_first_episode_of_the_evaluation():
    env, again = (make_vec_env("toy-reach", seed=3) for _ in range(2))
    frames, _ = film(Best(env), env, views.view_of(env, None, 60), [0], every=1, until_success=False)
    first = views.view_of(again, None, 60).render(again.reset(), [0])[0]
    np.testing.assert_array_equal(frames[0], caption(first, "toy-reach/right", "0"))


def test_tiles_are_rows_of_five():
    grid = tile([np.full((2, 4, 3), k, np.uint8) for k in range(7)])
    assert grid.shape == (4, 20, 3)
    assert grid[0, ::4, 0].tolist() == [0, 1, 2, 3, 4]
    assert grid[2, ::4, 0].tolist() == [5, 6, 255, 255, 255]


def test_no_frames_and_no_encoder_are_said(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="at least one frame"):
        save_film(tmp_path / "a.gif", [], 10)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="file cannot be made"):
        save_film(tmp_path / "file" / "a.gif", [np.zeros((2, 2, 3), np.uint8)], 10)
    (tmp_path / "b.gif").mkdir()
    with pytest.raises(CheckpointError, match="b.gif cannot be written"):
        save_film(tmp_path / "b.gif", [np.zeros((2, 2, 3), np.uint8)], 10)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingDependencyError, match=r"mtrl-imgrad\[video\]"):
        save_film(tmp_path / "a.mp4", [np.zeros((2, 2, 3), np.uint8)], 10)


def test_where_nothing_renders_the_message_says_what_to_install(monkeypatch):
    def nothing(colour):
        raise MissingDependencyError("no")

    monkeypatch.setattr(views, "choose_colour", nothing)
    with pytest.raises(MissingDependencyError, match="libosmesa6"):
        views.prepare_rendering()


@pytest.mark.slow
def test_meta_world_is_filmed(tmp_path):
    """In processes of their own: what draws is chosen where mujoco is first imported."""
    run, out = tmp_path / "run", tmp_path / "a.mp4"
    short = ["--env", "reach-v3", "drawer-close-v3", "--horizon", "20", "--backend", "metaworld", *TRAIN]
    command = [sys.executable, "-m", "mtrl_imgrad.cli"]
    subprocess.run([*command, "train", *short, "--run-dir", str(run)], check=True, capture_output=True)
    options = ["--out", str(out), "--size", "64", "--every", "10", "--camera", "corner2"]
    done = subprocess.run([*command, "video", str(run), *options], capture_output=True, text=True)
    if "libosmesa6" in done.stderr:
        pytest.skip("nothing renders here")
    assert done.returncode == 0, done.stderr
    frames = iio.imread(out).astype(float)
    assert frames.shape == (3, 80, 128, 3)
    left, right = frames[0, 20:, :64], frames[0, 20:, 64:]
    assert left.std() > 20  # a picture, not a plain area
    assert abs(left - right).mean() > 2  # of other tasks
