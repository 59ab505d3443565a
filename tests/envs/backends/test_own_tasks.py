"""Tasks of one's own: Gymnasium environments behind one vector environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mtrl_imgrad import MTSAC, evaluate_success, make_vec_env
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError


class Walk(gym.Env):
    """A number walks by the action and by noise; it ends at ``end``, or as it is told to."""

    def __init__(
        self,
        width: int = 2,
        noise: float = 0.1,
        end: float = 3.0,
        cut: int | None = None,
        key: str | None = "success",
        actions: float = 1.0,
    ) -> None:
        self.observation_space = spaces.Box(-10, 10, (width,), dtype=np.float32)
        self.action_space = spaces.Box(-actions, actions, (1,), dtype=np.float32)
        self.noise, self.end, self.cut, self.key = noise, end, cut, key
        self.broken: str | None = None

    def _observe(self) -> np.ndarray:
        return np.full(self.observation_space.shape, self.at, dtype=np.float32)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps = float(self.np_random.uniform(-1, 1)), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.broken == "raise":
            raise ZeroDivisionError("no ground")
        if self.broken == "stop":
            raise StopIteration("no data")
        self.steps += 1
        self.at += float(action[0]) + self.noise * float(self.np_random.normal())
        observation = self._observe()
        if self.broken == "shape":
            observation = observation[:1]
        reward = np.nan if self.broken == "nan" else -abs(self.at)
        info = {} if self.key is None else {self.key: float(self.at > 0.5)}
        return observation, reward, self.at > self.end, self.steps == self.cut, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        return np.full((2, 2, 3), self.steps, dtype=np.uint8)


def walks(**options: Any) -> dict[str, Callable[[], gym.Env]]:
    return {"short": Walk, "wide": lambda: Walk(width=3, **options)}


def up(rows: int, how: float = 1.0) -> np.ndarray:
    return np.full((rows, 1), how, dtype=np.float32)


def test_shorter_observations_are_filled_up_and_the_one_hot_comes_last() -> None:
    env = make_vec_env(walks(), seed=0, horizon=5, num_envs_per_task=2)
    assert (env.backend, env.task_names, env.num_envs) == ("gymnasium", ["short", "wide"], 4)
    observations = env.reset()
    assert observations.shape == (4, 5)
    assert env.observation_space.contains(observations[0])
    assert (observations[:2, 2] == 0).all()
    assert (observations[2:, 2] != 0).all()
    np.testing.assert_array_equal(observations[:, 3:], np.repeat(np.eye(2), 2, axis=0))
    assert len(set(observations[:, 0].tolist())) == 4, "every row has a stream of its own"
    np.testing.assert_array_equal(observations, make_vec_env(walks(), seed=0, horizon=5, num_envs_per_task=2).reset())
    assert (observations[:, 0] != make_vec_env(walks(), seed=1, horizon=5, num_envs_per_task=2).reset()[:, 0]).all()


def test_episodes_end_by_termination_by_their_environment_and_by_the_horizon() -> None:
    env = make_vec_env({"ends": Walk, "cut": lambda: Walk(end=99, cut=4), "late": lambda: Walk(end=99)}, horizon=7)
    env.reset()
    ends: dict[int, list[tuple[int, bool]]] = {0: [], 1: [], 2: []}
    for step in range(1, 15):
        observations, _, dones, infos = env.step(up(3))
        for row in np.flatnonzero(dones).tolist():
            ends[row].append((infos[row]["episode"]["l"], infos[row]["TimeLimit.truncated"]))
            assert infos[row]["terminal_observation"][0] > observations[row, 0], "it has begun anew"
            assert infos[row]["is_success"]
        assert step
    assert all(3 <= length <= 5 and not truncated for length, truncated in ends[0])
    assert ends[1] == [(4, True)] * 3
    assert ends[2] == [(7, True)] * 2


@pytest.mark.parametrize(("key", "succeeds"), [("success", True), ("is_success", True), (None, False)])
def test_success_is_what_the_info_says(key: str | None, succeeds: bool) -> None:
    env = make_vec_env({"task": lambda: Walk(key=key, end=99)}, horizon=4)
    env.reset()
    for _ in range(4):
        infos = env.step(up(1))[3]
    assert infos[0].get("is_success") == (succeeds if key else None)
    assert infos[0].get("success") == (succeeds if key else None)
    env = make_vec_env({"task": lambda: Walk(key=key, end=99)}, horizon=4, terminate_on_success=True)
    env.reset()
    lengths = [info["episode"]["l"] for _ in range(4) for info in env.step(up(1))[3] if "episode" in info]
    assert (lengths[0] < 4) == succeeds


def test_episodes_are_restored_in_their_midst() -> None:
    """Rows of different age, one of which must not be stepped before its episode begins."""
    env, other = (make_vec_env(walks(cut=5), seed=3, horizon=9) for _ in range(2))
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(7):
        env.step(rng.uniform(-1, 1, (2, 1)))
    state = env.get_state()
    assert state is not None
    assert len(set(state["episodes"]["lengths"].tolist())) == 2
    other.set_state(state)
    for _ in range(8):
        actions = rng.uniform(-1, 1, (2, 1))
        for ours, theirs in zip(env.step(actions)[:3], other.step(actions)[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_repeated_is_said() -> None:
    class Drifting(Walk):
        lives = 0

        def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
            found = super().reset(**options)
            Drifting.lives += 1
            self.at += Drifting.lives
            return self._observe(), found[1]

    env = make_vec_env({"task": Drifting}, horizon=9)
    env.reset()
    state = env.get_state()
    assert state is not None
    with pytest.raises(EnvironmentFaultError, match="cannot be restored: task 'task', environment 0, is 1 away"):
        make_vec_env({"task": Drifting}, horizon=9).set_state(state)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", r"task 'wide', environment 1, step 3 of its episode raised ZeroDivisionError: no ground"),
        ("shape", r"the observation has shape \(1,\), its space \(3,\), in task 'wide'"),
        ("nan", r"the reward is nan in task 'wide', environment 1, step 3 of its episode"),
        ("stop", r"task 'wide', environment 1, step 3 of its episode raised StopIteration: no data"),
    ],
)
def test_faults_are_named(fault: str, words: str) -> None:
    env = make_vec_env(walks(), horizon=9)
    env.reset()
    for _ in range(2):
        env.step(up(2, 0.0))
    env.set_attr("broken", fault, indices=[1])
    with pytest.raises(EnvironmentFaultError, match=words):
        env.step(up(2, 0.0))
    env.set_attr("broken", None, indices=[1])
    env.reset()
    env.step(up(2, 0.0))


def test_single_environments_can_be_reached_and_pictured() -> None:
    env = make_vec_env(walks(), horizon=9, render_mode="rgb_array")
    env.reset()
    env.step(up(2, 0.0))
    assert env.get_attr("noise") == [0.1, 0.1]
    assert env.env_method("_observe", indices=[1])[0].shape == (3,)
    assert [image.max() for image in env.get_images()] == [1, 1]  # type: ignore[union-attr]
    env.close()


@pytest.mark.parametrize(
    ("tasks", "options", "words"),
    [
        ({}, {}, "tasks is empty"),
        ({"a": 3}, {}, r"tasks\['a'\] must be a Gymnasium id or a function that builds an environment, got 3"),
        ({1: Walk}, {}, "tasks must be a string"),
        ({"": Walk}, {}, "tasks must have names as keys, got ''"),
        ({"a": "NoSuch-v9"}, {}, r"tasks\['a'\] cannot be built: NameNotFound"),
        ({"a": lambda: 1 / 0}, {}, r"tasks\['a'\] cannot be built: ZeroDivisionError"),
        ({"a": dict}, {}, r"tasks\['a'\] must build a gymnasium.Env, got dict"),
        ({"a": Walk}, {"horizon": None}, r"horizon must be given: tasks\['a'\] has no max_episode_steps"),
        ({"a": "CartPole-v1"}, {}, r"tasks\['a'\] must have a flat Box of actions, got Discrete"),
        ({"a": Walk, "b": lambda: Walk(actions=2)}, {}, r"tasks\['b'\] has the actions Box.*RescaleAction"),
        ({"a": Walk}, {"backend": "metaworld"}, "backend='metaworld' does not have the task 'a'"),
        ({"a": Walk}, {"vector_strategy": "async"}, "'gymnasium' cannot do what is asked for: vector_strategy='async'"),
        ({"a": Walk}, {"num_goals": 3}, "num_goals=3"),
    ],
)
def test_wrong_tasks_are_named(tasks: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make_vec_env(tasks, **{"horizon": 5, **options})


def test_an_agent_learns_them_and_goes_on_exactly(tmp_path: Any) -> None:
    tasks = {"light": lambda: gym.make("Pendulum-v1", g=5.0), "heavy": lambda: gym.make("Pendulum-v1", g=12.0)}
    options = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 20, "batch_size": 8}
    env = make_vec_env(tasks, seed=0)
    assert env.horizon == 200
    agent = MTSAC("MlpPolicy", env, seed=0, device="cpu", trace=False, **options)  # type: ignore[arg-type]
    agent.learn(50)
    agent.save_checkpoint(tmp_path / "half")
    agent.learn(16, reset_num_timesteps=False)
    resumed = MTSAC.load_checkpoint(tmp_path / "half", make_vec_env(tasks, seed=0), device="cpu")
    resumed.learn(16, reset_num_timesteps=False)
    for ours, theirs in zip(agent.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert (ours == theirs).all()
    report = evaluate_success(agent, make_vec_env(tasks, seed=1, horizon=20), n_episodes=1)
    assert report.task_names == ("light", "heavy")
    assert (report.returns < 0).all()
