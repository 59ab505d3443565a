"""What users' environments, and the functions that build them, get wrong: errors with task, environment and step."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from mtrl_imgrad import evaluate_success, make_vec_env
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError

pytestmark = pytest.mark.faults


class Script(gym.Env):
    """Answers as it is told, from the third step of an episode on."""

    def __init__(self, width: int = 2, actions: spaces.Space | None = None, **answers: Any) -> None:
        self.observation_space: Any = spaces.Box(-10, 10, (width,), dtype=np.float32)
        self.action_space: Any = actions or spaces.Box(-1, 1, (1,), dtype=np.float32)
        self.answers = answers
        self.received: list[np.ndarray] = []
        self.closed = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        found = np.zeros(self.observation_space.shape, dtype=np.float32)
        return self.answers["reset"](found) if "reset" in self.answers else (found, {})

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        self.received.append(action)
        observation = np.full(self.observation_space.shape, self.steps, dtype=np.float32)
        answer = {"observation": observation, "reward": 1.0, "terminated": False, "truncated": False, "info": {}}
        if self.steps == 3:
            if "step" in self.answers:
                return self.answers["step"](tuple(answer.values()))
            answer |= {name: value for name, value in self.answers.items() if name in answer}
        return tuple(answer.values())

    def close(self) -> None:
        self.closed += 1
        if "close" in self.answers:
            raise OSError("busy")


def script(**answers: Any) -> Any:
    """Two tasks, the second of which is as told."""
    return make_vec_env({"good": Script, "bad": lambda: Script(**answers)}, horizon=5, num_envs_per_task=2)


def act(env: Any, steps: int) -> list[Any]:
    return [env.step(np.zeros((env.num_envs, 1), np.float32)) for _ in range(steps)]


OLD = "old interface"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"step": lambda parts: parts[:3] + parts[4:]}, rf"a tuple of 4: \(ndarray, float, bool, dict\) .*{OLD}"),
        (
            {"step": lambda parts: None},
            r"step must return \(observation, reward, terminated, truncated, info\), got None",
        ),
        ({"step": lambda parts: parts[0]}, r"got ndarray of shape \(2,\)"),
        ({"step": lambda parts: (*parts, 0)}, "a tuple of 6"),
        ({"observation": None}, "the observation must hold numbers, got None"),
        ({"observation": np.zeros(3)}, r"the observation has shape \(3,\), its space \(2,\)"),
        ({"observation": np.zeros((1, 2))}, r"the observation has shape \(1, 2\)"),
        ({"observation": [[1, 2], [3]]}, "the observation cannot be read as an array"),
        ({"observation": {"position": 1}}, "the observation must hold numbers, got {'position': 1}"),
        ({"observation": np.array(["a", "b"])}, "the observation must hold numbers, got ndarray of shape"),
        ({"observation": np.array([1j, 0])}, "the observation must hold numbers"),
        ({"observation": np.array([0, np.nan])}, r"observation\[1\] is nan"),
        ({"reward": None}, "the reward must be a number, got None"),
        ({"reward": np.zeros(1)}, r"the reward must be a number, got ndarray of shape \(1,\)"),
        ({"reward": np.array(1j)}, "the reward must be a number"),
        ({"reward": np.complex128(1)}, "the reward must be a number"),
        ({"reward": "1.0"}, "the reward must be a number, got '1.0'"),
        ({"reward": np.inf}, "the reward is inf"),
        ({"terminated": 1}, "terminated must be True or False, got 1"),
        ({"terminated": None}, "terminated must be True or False, got None"),
        ({"truncated": np.array([True])}, r"truncated must be True or False, got ndarray of shape \(1,\)"),
        ({"truncated": 0.0}, "truncated must be True or False, got 0.0"),
        ({"info": None}, "info must be a dict, got None"),
        ({"info": [{}]}, "info must be a dict"),
        ({"info": {"success": None}}, r"info\['success'\] must be True, False or a number, got None"),
        ({"info": {"is_success": np.zeros(2)}}, r"info\['is_success'\] must be .* array of shape \(2,\)"),
        ({"info": {"success": "no"}}, r"got 'no'"),
    ],
)
def test_a_wrong_answer_of_a_step_is_named(answers: dict[str, Any], words: str) -> None:
    env = script(**answers)
    env.reset()
    act(env, 2)
    with pytest.raises(EnvironmentFaultError, match=f"{words}.*task 'bad', environment 2, step 3 of its episode"):
        act(env, 1)
    env.reset()
    act(env, 2)  # it goes on


@pytest.mark.parametrize(
    ("reset", "words"),
    [
        (lambda found: found, rf"reset must return \(observation, info\), info a dict; got ndarray .*{OLD}"),
        (lambda found: None, "got None"),
        (lambda found: (found,), "a tuple of 1"),
        (lambda found: (found, None), r"a tuple of 2: \(ndarray, NoneType\)"),
        (lambda found: (found[:1], {}), r"the observation has shape \(1,\), its space \(2,\)"),
        (lambda found: (None, {}), "the observation must hold numbers, got None"),
        (lambda found: 1 / 0, "at its reset raised ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_of_a_reset_is_named(reset: Any, words: str) -> None:
    env = script(reset=reset)
    with pytest.raises(EnvironmentFaultError, match=words) as caught:
        env.reset()
    assert "task 'bad', environment 2, at its reset" in str(caught.value)


def test_a_reset_without_a_seed_is_named() -> None:
    class Old(Script):
        def reset(self) -> Any:  # type: ignore[override]
            return super().reset()

    with pytest.raises(EnvironmentFaultError, match="task 'old', environment 0, at its reset raised TypeError.*'seed'"):
        make_vec_env({"old": Old}, horizon=5).reset()


def test_numbers_of_any_kind_are_taken() -> None:
    env = make_vec_env(
        {
            "numpy": lambda: Script(reward=np.float32(2), terminated=np.bool_(False), info={"success": np.array(0.0)}),
            "arrays": lambda: Script(reward=np.array(2), truncated=np.array(True), observation=[1, 2]),
            "torch": lambda: Script(reward=torch.tensor(2.0), terminated=torch.tensor(True), observation=torch.ones(2)),
            "integers": lambda: Script(reward=2, observation=np.array([1, 2], np.uint8)),
        },
        horizon=9,
    )
    env.reset()
    _, rewards, dones, _ = act(env, 3)[-1]
    assert rewards.tolist() == [2] * 4
    assert dones.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "got None: does the function return what it builds"),
        (lambda: Script, "got the class Script: call it"),
        (lambda: DummyVecEnv([Script]), "got DummyVecEnv, a vector of environments"),
        (lambda: gym.make_vec("Pendulum-v1", 1), "got SyncVectorEnv, a vector of environments"),
        (
            lambda: torch.optim.SGD([torch.zeros(1)], lr=1),
            r"got SGD \(of torch.optim.sgd\), which has another interface",
        ),
        (Script(), "write lambda: ... around what builds it"),
        (lambda: Script(actions=spaces.Discrete(3)), "must have a flat Box of actions, got Discrete"),
        (lambda: Script(actions=spaces.Box(-1, 1, (2, 2))), "must have a flat Box of actions"),
        (lambda: Script(actions=spaces.Box(0, 5, (1,), np.int64)), "actions of floats"),
        (lambda: Script(actions=spaces.Box(np.float32([0, 1]), np.float32([1, 1]))), r"\[1.0, 1.0\] for number 1"),
        (lambda: Script(width=0), "must have a flat Box of observations"),
    ],
)
def test_what_cannot_be_a_task_is_said(make: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        make_vec_env({"good": Script, "bad": make}, horizon=5)
    assert "tasks['bad']" in str(caught.value)


def test_spaces_that_are_missing_or_not_numbers_are_said() -> None:
    class Bare(Script):
        def __init__(self, missing: str) -> None:
            super().__init__()
            delattr(self, missing)

    for missing in ("observation_space", "action_space"):
        with pytest.raises(ArgumentError, match=r"tasks\['bare'\] must have a flat Box"):
            make_vec_env({"bare": lambda missing=missing: Bare(missing)}, horizon=5)


@pytest.mark.parametrize("wrap", [lambda env: env, gym.wrappers.RecordEpisodeStatistics])
def test_one_environment_cannot_be_two_rows(wrap: Any) -> None:
    one = Script()
    with pytest.raises(ArgumentError, match=r"tasks\['b'\] must build a new .* environment 0 \(task 'a'\) has already"):
        make_vec_env({"a": lambda: one, "b": lambda: wrap(one)}, horizon=5)
    with pytest.raises(ArgumentError, match=r"tasks\['a'\] must build a new .* environment 0 \(task 'a'\)"):
        make_vec_env({"a": lambda: wrap(one)}, horizon=5, num_envs_per_task=2)


def test_one_environment_cannot_be_in_training_and_in_evaluation() -> None:
    one = Script()
    training = make_vec_env({"a": lambda: one}, horizon=5)
    with pytest.raises(ArgumentError, match="another vector environment steps"):
        make_vec_env({"a": lambda: one}, horizon=5)
    training.close()
    again = make_vec_env({"a": lambda: one}, horizon=5)
    again.reset()
    del training, again
    gc.collect()
    make_vec_env({"a": lambda: one}, horizon=5).reset()


def test_what_was_built_is_closed_where_a_later_task_cannot_be() -> None:
    first = Script()
    with pytest.raises(ArgumentError, match="cannot be built"):
        make_vec_env({"a": lambda: first, "b": lambda: 1 / 0}, horizon=5)
    assert first.closed == 1


def test_an_observation_written_over_the_last_one_changes_nothing_that_was_returned() -> None:
    class Reusing(Script):
        buffer = np.zeros(2, dtype=np.float32)

        def reset(self, **options: Any) -> Any:
            self.buffer[:] = super().reset(**options)[0] - 1
            return self.buffer, {}

        def step(self, action: np.ndarray) -> Any:
            observation, *rest = super().step(action)
            self.buffer[:] = observation
            return self.buffer, *rest

    env = make_vec_env({"a": Reusing, "b": Reusing}, horizon=3, one_hot=False)
    first = env.reset()
    steps = act(env, 4)
    assert first[:, 0].tolist() == [-1, -1]
    assert [step[0][0, 0] for step in steps] == [1, 2, -1, 1]
    assert [info["terminal_observation"][0] for info in steps[2][3]] == [3, 3]


def test_an_environment_that_changes_its_action_changes_no_one_else_s() -> None:
    class Rude(Script):
        def step(self, action: np.ndarray) -> Any:
            answer = super().step(action)
            action[:] = np.nan
            return answer

    env = make_vec_env({"a": Rude, "b": Rude}, horizon=5)
    env.reset()
    actions = np.full((2, 1), 0.5, np.float32)
    env.step(actions)
    assert (actions == 0.5).all()
    state = env.get_state()
    assert state is not None
    assert (state["actions"] == 0.5).all()


def test_actions_stay_within_bounds_that_float32_cannot_hold() -> None:
    """And asymmetric bounds reach the environment as they are."""
    box = spaces.Box(np.array([-0.1, 2.0]), np.array([0.3, 2.7]), dtype=np.float64)
    env = make_vec_env({"a": lambda: Script(actions=box)}, horizon=5)
    assert (env.action_space.low.astype(float) >= box.low).all()  # type: ignore[attr-defined]
    assert (env.action_space.high.astype(float) <= box.high).all()  # type: ignore[attr-defined]
    env.reset()
    for end in (env.action_space.low, env.action_space.high):  # type: ignore[attr-defined]
        env.step(end[None])
        assert box.contains(env.get_attr("received")[0][-1])


@pytest.mark.parametrize("actions", [None, "left", [["a"], ["b"]], [[1], [2, 3]]])
def test_actions_that_are_no_numbers(actions: Any) -> None:
    env = make_vec_env({"a": Script, "b": Script}, horizon=5)
    env.reset()
    with pytest.raises((ArgumentError), match="actions"):
        env.step(actions)


def test_an_observation_outside_of_its_space_is_told_once() -> None:
    env = script(observation=np.array([0.0, 77.0]))
    env.reset()
    act(env, 2)
    with pytest.warns(
        UserWarning, match=r"observation\[1\] is 77, outside of its space, \[-10, 10\], in task 'bad'"
    ) as told:
        act(env, 1)
    assert len(told) == 2, "once for each of the two copies"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act(env, 5)


def test_an_environment_that_never_ends_is_truncated() -> None:
    env = make_vec_env({"a": Script}, horizon=4)
    env.reset()
    assert [(step[2][0], step[3][0]["TimeLimit.truncated"]) for step in act(env, 4)][-1] == (True, True)


def test_success_in_some_episodes_only() -> None:
    class Sometimes(Script):
        episodes = 0

        def reset(self, **options: Any) -> Any:
            self.episodes += 1
            return super().reset(**options)

        def step(self, action: np.ndarray) -> Any:
            *rest, info = super().step(action)
            return *rest, ({"success": False} if self.episodes == 1 else info)

    env = make_vec_env({"good": Script, "bad": Sometimes}, horizon=2)
    env.reset()
    act(env, 3)
    with pytest.raises(
        EnvironmentFaultError,
        match="task 'bad', environment 1, at the end of its episode: no info of this episode held",
    ):
        act(env, 1)
    with pytest.raises(EnvironmentFaultError, match="call reset first"):
        act(env, 1)


def test_success_said_at_the_end_of_an_episode_only_is_enough() -> None:
    """As SB3's own environments say it."""
    env = make_vec_env({"a": lambda: Script(terminated=True, info={"is_success": True})}, horizon=9)
    env.reset()
    infos = [step[3][0] for step in act(env, 3)]
    assert ["success" in info for info in infos] == [False, False, True]
    assert infos[2]["is_success"] is True


def test_tasks_without_a_notion_of_success_are_evaluated_by_return() -> None:
    class Agent:
        def predict(self, observation: Any, *, deterministic: bool = True) -> Any:
            return np.zeros((len(observation), 1), np.float32), None

    told = {"told": lambda: Script(terminated=True, info={"is_success": True}), "silent": Script}
    report = evaluate_success(Agent(), make_vec_env(told, horizon=5), 2)
    assert report.success_rate[0] == report.mean_success == 1
    assert np.isnan(report.success_rate[1])
    assert report.returns.tolist() == [[3, 3], [5, 5]]


@pytest.mark.parametrize("image", [None, [1], np.zeros((2, 2))])
def test_what_is_no_picture_is_named(image: Any) -> None:
    class Blind(Script):
        def render(self) -> Any:
            return image

    env = make_vec_env({"good": Blind}, horizon=5, render_mode="rgb_array")
    with pytest.raises(
        EnvironmentFaultError, match="render must return .* task 'good', environment 0, as it is rendered"
    ):
        env.get_images()


def test_closing_twice_and_using_what_is_closed() -> None:
    env = script()
    env.reset()
    env.close()
    env.close()
    assert [one.closed for one in env.envs] == [1] * 4
    for use in (env.reset, lambda: act(env, 1)):
        with pytest.raises(EnvironmentFaultError, match="gymnasium environment of good, bad is closed"):
            use()


def test_one_that_cannot_be_closed_leaves_none_open() -> None:
    env = make_vec_env({"bad": lambda: Script(close=True), "good": Script}, horizon=5)
    with pytest.raises(
        EnvironmentFaultError, match="closing environment 0 raised OSError: busy; the others are closed"
    ):
        env.close()
    assert env.envs[1].closed == 1
    env.close()
