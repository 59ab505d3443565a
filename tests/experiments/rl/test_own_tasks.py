"""``--env package.module:attribute``: tasks of one's own from the command line."""

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.rl.config import load_config
from mtrl_imgrad.experiments.rl.own_tasks import find_tasks

MODULE = """
import gymnasium as gym
import numpy as np

class Point(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, goal): self.goal = goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.left = float(self.np_random.uniform(-1, 1)), 5
        return self._seen(), {}

    def step(self, action):
        self.at, self.left = self.at + float(action[0]), self.left - 1
        near = abs(self.at - self.goal) < 0.5
        return self._seen(), -abs(self.at - self.goal), False, not self.left, {"success": near}

    def _seen(self): return np.clip(np.array([self.at, self.left], np.float32), -9, 9)

def left(): return Point(-2)
def right(): return Point(2)
pair = {"to the left": left, "to the right": right}
number = 3
"""

SMALL = (
    "--total-timesteps 200 --learning-starts 100 --net-arch 8 --batch-size 16 --eval-freq 0 --eval-episodes 1 "
    "--final-episodes 1 --encoder one_hot --horizon 5 --no-progress-bar --no-trace"
).split()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "my_points.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_points", raising=False)


def test_a_run_on_own_tasks_is_trained_and_evaluated_by_its_folder(tmp_path, capsys):
    assert main(["train", "--env", "my_points:pair", *SMALL, "--run-dir", "run"]) == 0
    assert "simulator: gymnasium to train, gymnasium to evaluate" in capsys.readouterr().out
    assert load_config(tmp_path / "run" / "config.yaml").env.env == ("my_points:pair",)
    assert main(["evaluate", "run", "--episodes", "1"]) == 0
    assert "to the left" in capsys.readouterr().out


def test_functions_are_tasks_by_their_names():
    assert list(find_tasks(["my_points:left", "my_points:right"])) == ["left", "right"]
    assert list(find_tasks(["my_points:pair"])) == ["to the left", "to the right"]
    assert find_tasks(["MT10"]) == "MT10"
    assert find_tasks(["reach", "push"]) == ["reach", "push"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["my_pionts:pair"], "No module named 'my_pionts'"),
        (["my_points:pairs"], "no attribute 'pairs'"),
        (["my_points:number"], "must hold a function .*, got int"),
        (["my_points:left", "my_points:left"], "'left' is there already"),
        (["my_points:left", "reach"], "not both"),
        ([":left"], "expected package.module:attribute"),
    ],
)
def test_what_is_wrong_is_said(names, says):
    with pytest.raises(ArgumentError, match=says):
        find_tasks(names)
    assert main(["train", "--env", *names, *SMALL]) == 2


def test_resuming_no_run_says_what_evaluating_none_says(capsys):
    said = []
    for command in (["evaluate", "none"], ["train", "--resume", "none"], ["supervised", "--resume", "none"]):
        assert main(command) == 2
        said.append(capsys.readouterr().err)
    assert len(set(said)) == 1
    assert "run none: there is no config.yaml" in said[0]
