"""EnvPool against the reference, task by task: the same goal vector, the same actions.

EnvPool 1.2.5 simulates with MuJoCo 3.6.0, Meta-World 3.1.1 with 3.3.0, and contacts differ between the two: a
loose object (puck, block, peg) settles on the table a little differently, a push may go otherwise. So here
the hand is lifted away from everything. Then the two agree to rounding where nothing lies loose, and closely
elsewhere.

With MuJoCo 3.6.0 under the reference too, all ten tasks agree to 1e-7 in the observations and 2e-6 in the
rewards, whole episodes of the scripted experts included, but for the two things that are tested below: three
tasks' first observation, and pick-place's reward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from metaworld.env_dict import MT10_V3
from scipy.stats import ks_2samp

from mtrl_imgrad.envs import MultiTaskVecEnv, list_tasks, make_vec_env
from mtrl_imgrad.envs.backends.metaworld_rows import draw_task_vector, set_task_vector

pytestmark = pytest.mark.portable

pytest.importorskip("envpool")

TASKS = list_tasks("MT10")
LOOSE = ["reach-v3", "push-v3", "pick-place-v3", "peg-insert-side-v3"]  # an object lies on the table
HAND, OBJECT, GOAL = slice(0, 4), slice(4, 7), slice(36, 39)

# Largest difference of the first observation. The reference takes drawer-open's and window-open's before the
# kinematics are updated (the hand is one substep behind), and window-close's with the handle still at its
# other end.
FIRST = {"drawer-open-v3": 1e-4, "window-open-v3": 1e-4, "window-close-v3": 0.2 + 1e-6}
FIRST_LOOSE = 1e-3  # the object's orientation

# Largest difference of a reward where it is more than 1e-5: it sees the loose object.
REWARD = {"push-v3": 1e-3, "peg-insert-side-v3": 1e-3, "pick-place-v3": 0.15}


class Reference:
    """A raw Meta-World environment of a task, and the task vector that an observation shows."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.env: Any = MT10_V3[task]()
        self.pads = self.env.init_left_pad.copy(), self.env.init_right_pad.copy()
        vector = draw_task_vector(self.env, np.random.default_rng(0))
        self.size = len(vector)
        shown = self.start(vector)
        self._goal_offset, self._object_offset = shown[GOAL] - vector[-3:], shown[OBJECT] - vector[:3]

    def start(self, vector: np.ndarray) -> np.ndarray:
        set_task_vector(self.env, self.task, vector)
        return self.env.reset()[0]

    def vector_of(self, observation: np.ndarray) -> np.ndarray:
        """The goal is shown less a constant offset, and so is the object where the vector places one."""
        goal = observation[GOAL] - self._goal_offset
        return goal if self.size == 3 else np.concatenate([observation[OBJECT] - self._object_offset, goal])


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {task: Reference(task) for task in TASKS}


def compare(
    task: str, reference: Reference, steps: int, before: Callable[[Any], None] = lambda env: None
) -> dict[str, np.ndarray]:
    """Absolute differences of an upward episode: of ``first`` and ``later`` observations, of ``rewards``."""
    import envpool

    from mtrl_imgrad.envs.backends.envpool import _pool_id

    pool = envpool.make_gymnasium(_pool_id(task), num_envs=1, seed=9, partially_observable=False)
    shown = pool.reset()[0][0]
    first = reference.start(reference.vector_of(shown))
    before(reference.env)
    observations, rewards = [], []
    for action in np.random.default_rng(1).uniform([-1, -1, 0, -1], 1, (steps, 4)).astype(np.float32):
        theirs, reward, _, _, info = pool.step(action[None])
        ours, expected, _, _, expected_info = reference.env.step(action)
        observations.append(np.abs(theirs[0] - ours))
        rewards.append(abs(float(reward[0]) - expected))
        assert (info["success"][0] > 0.5) == (expected_info["success"] > 0.5)
    return {"first": np.abs(shown - first), "later": np.array(observations), "rewards": np.array(rewards)}


@pytest.mark.parametrize("task", TASKS)
def test_same_vector_same_actions(task: str, references: dict[str, Reference]) -> None:
    difference = compare(task, references[task], steps=100)
    loose = task in LOOSE
    assert difference["first"].max() <= (FIRST_LOOSE if loose else FIRST.get(task, 1e-6))
    later = difference["later"][1:]  # the first step still holds the reset's frame
    assert later[:, HAND].max() <= 1e-6
    assert later[:, GOAL].max() <= (1e-5 if loose else 1e-6)
    assert later.max() <= (5e-3 if loose else 1e-6)
    assert difference["rewards"].max() <= REWARD.get(task, 1e-5)


def test_why_pick_place_rewards_differ(references: dict[str, Reference]) -> None:
    """Its reward uses the finger pads' first position.

    Meta-World keeps a view, which follows the present position; EnvPool keeps the one at construction. With
    that in the reference too, the difference is gone.
    """

    def freeze(env: Any) -> None:
        env.init_left_pad, env.init_right_pad = references["pick-place-v3"].pads

    as_it_is = compare("pick-place-v3", references["pick-place-v3"], steps=40)["rewards"]
    frozen = compare("pick-place-v3", references["pick-place-v3"], steps=40, before=freeze)["rewards"]
    assert as_it_is.max() > 5e-3
    assert np.median(frozen) < 1e-4
    assert np.median(frozen) < np.median(as_it_is) / 20


def test_goals_and_objects_are_drawn_alike(references: dict[str, Reference]) -> None:
    """Every coordinate of the task vector: the same distribution (Kolmogorov-Smirnov) over the same range."""
    env = make_vec_env("MT10", backend="envpool", seed=11)
    shown = np.stack([env.reset() for _ in range(40)], axis=1)
    env.close()
    for number, task in enumerate(TASKS):
        reference = references[task]
        theirs = np.array([reference.vector_of(row.astype(float)) for row in shown[number, :, :39]])
        generator = np.random.default_rng(number)
        ours = np.array([draw_task_vector(reference.env, generator) for _ in range(200)])
        space = reference.env._random_reset_space
        for column in range(reference.size):
            width = space.high[column] - space.low[column]
            shown_at_all = not (task == "push-v3" and column == 5)  # push's goal lies on the table, whatever is drawn
            if width < 1e-6 or not shown_at_all:
                continue
            assert theirs[:, column].min() >= space.low[column] - 1e-5
            assert theirs[:, column].max() <= space.high[column] + 1e-5
            assert np.ptp(theirs[:, column]) > 0.7 * width, (task, column)
            assert ks_2samp(theirs[:, column], ours[:, column]).pvalue > 1e-4, (task, column)


def success_of_experts(env: MultiTaskVecEnv) -> np.ndarray:
    """Success rate a task of Meta-World's scripted policies over one episode of each environment."""
    from metaworld.policies import ENV_POLICY_MAP

    policies = [ENV_POLICY_MAP[env.task_names[task]]() for task in env.task_ids]
    observations = env.reset()
    for _ in range(env.horizon):
        states = observations[:, :39].astype(float)
        actions = [policy.get_action(state) for policy, state in zip(policies, states, strict=True)]
        observations, _, _, infos = env.step(np.clip(actions, -1, 1))
    return np.array([info["is_success"] for info in infos]).reshape(env.num_tasks, -1).mean(axis=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Constant.s. may be too high:UserWarning")
@pytest.mark.parametrize("backend", ["metaworld", "envpool"])
def test_the_experts_solve_both(backend: str) -> None:
    env = make_vec_env("MT10", backend=backend, num_envs_per_task=4, horizon=250)
    rates = success_of_experts(env)
    env.close()
    assert rates.mean() >= 0.9, dict(zip(TASKS, rates, strict=True))
    assert (rates >= 0.5).all(), dict(zip(TASKS, rates, strict=True))
