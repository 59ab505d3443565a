"""What both Meta-World back-ends must do, then the reference alone: a test for each way to be misled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict

import metaworld
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from mtrl_imgrad.envs import MultiTaskVecEnv, list_tasks, make_vec_env
from mtrl_imgrad.envs.backends import metaworld_rows
from mtrl_imgrad.envs.backends.metaworld import MetaWorldVecEnv
from mtrl_imgrad.envs.backends.metaworld_rows import draw_task_vector
from mtrl_imgrad.envs.workers.processes import MissingMethodError
from mtrl_imgrad.errors import EnvironmentFaultError

GOAL = slice(36, 39)


def random_actions(env: MultiTaskVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.num_envs, 4)).astype(np.float32)


def rollout(env: MultiTaskVecEnv, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations of a reset and of ``steps`` steps, and the steps' rewards."""
    observations, rewards = [env.reset()], []
    for actions in random_actions(env, steps):
        step = env.step(actions)
        observations.append(step[0])
        rewards.append(step[1])
    return np.array(observations), np.array(rewards)


def first_observations(env: MultiTaskVecEnv, resets: int) -> np.ndarray:
    return np.array([env.reset() for _ in range(resets)])


# Both back-ends


def test_observations_are_float32_with_the_one_hot_last_and_lie_in_the_space(mt10: MultiTaskVecEnv) -> None:
    observations, rewards = rollout(mt10, 12)
    assert mt10.task_names == list_tasks("MT10")
    assert observations.shape == (13, 10, 49)
    assert observations.dtype == rewards.dtype == np.float32
    np.testing.assert_array_equal(observations[:, :, 39:], np.broadcast_to(np.eye(10), (13, 10, 10)))
    for row in observations.reshape(-1, 49):
        assert mt10.observation_space.contains(row)
    assert (np.abs(observations[:, :, GOAL]).max(axis=-1) > 0.05).all()  # the goal is shown
    assert ((rewards >= 0) & (rewards <= 10)).all()


def test_episodes_end_by_truncation_at_the_horizon(three: MultiTaskVecEnv) -> None:
    three.reset()
    first = three.reset()
    for number, actions in enumerate(random_actions(three, 10), start=1):
        observations, _, dones, infos = three.step(actions)
        assert dones.tolist() == [number == 10] * 3
    for row, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == 10
        terminal = info["terminal_observation"]
        np.testing.assert_array_equal(terminal[GOAL], first[row, GOAL])  # of the episode that ended
        np.testing.assert_array_equal(terminal[39:], observations[row, 39:])
        # The new episode's frames are both its first one: nothing of the old episode is in it.
        np.testing.assert_allclose(observations[row, :18], observations[row, 18:36], atol=1e-6)
    assert (np.abs(observations[:, GOAL] - first[:, GOAL]).max(axis=1) > 1e-4).all()
    assert not three.step(random_actions(three, 1)[0])[2].any()


def test_the_same_seed_gives_the_same_episodes(three: MultiTaskVecEnv) -> None:
    first = rollout(three, 12)
    three.seed(0)
    again = rollout(three, 12)
    three.seed(1)
    other = first_observations(three, 1)[0]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (np.abs(first[0][0, :, GOAL] - other[:, GOAL]).max(axis=1) > 1e-4).all()


def test_tasks_and_copies_have_streams_of_their_own(backend: str) -> None:
    # The drawers share one range of goals; with one seed for all tasks they would get the same ones.
    drawers = make_vec_env(["drawer-open", "drawer-close"], seed=0, backend=backend)
    opening, closing = first_observations(drawers, 16)[:, :, GOAL.start].T
    drawers.close()
    assert np.abs(opening - closing).min() > 1e-6
    assert abs(np.corrcoef(opening, closing)[0, 1]) < 0.6
    pair = make_vec_env("reach", backend=backend, num_envs_per_task=2)
    copies = first_observations(pair, 12)[:, :, GOAL]
    assert (np.abs(copies[:, 0] - copies[:, 1]).max(axis=1) > 1e-6).mean() > 0.8
    pair.close()


def test_copies_are_task_major(backend: str) -> None:
    env = make_vec_env(["window-open", "reach", "push"], backend=backend, num_envs_per_task=2, horizon=4)
    observations, _ = rollout(env, 6)
    np.testing.assert_array_equal(observations[0, :, 39:], np.eye(3)[[0, 0, 1, 1, 2, 2]])
    np.testing.assert_allclose(observations[:, :2, 38], 0.16, atol=1e-6)  # window-open's goal height
    assert env.get_attr("task_name", [1, 2]) == ["window-open-v3", "reach-v3"]
    env.close()
    env.close()


def test_terminate_on_success(backend: str) -> None:
    """Drawer-close succeeds when the hand pushes the drawer; the other task goes on."""
    tasks = ["drawer-close-v3", "peg-insert-side-v3"]
    for terminate in (True, False):
        env = make_vec_env(tasks, backend=backend, horizon=200, terminate_on_success=terminate)
        observations, ends, latched = env.reset(), [], []
        for _ in range(200):
            hand, handle = observations[0, :3], observations[0, 4:7]
            # Down in front of the handle first, then push.
            offset = [0, -0.08, -0.02] if hand[2] > handle[2] + 0.02 else [0, 0.1, 0]
            push = np.append(np.clip(20 * (handle + np.array(offset) - hand), -1, 1), -1.0)
            observations, _, dones, infos = env.step(np.array([push, np.zeros(4)]))
            ends.append(dones[0])
            latched.append(infos[0]["success"])
            if dones[0]:
                break
        assert any(latched)
        assert infos[0]["is_success"] is True
        assert infos[0]["TimeLimit.truncated"] is not terminate
        assert dones[1] == (not terminate)
        assert infos[0]["episode"]["l"] == (np.argmax(latched) + 1 if terminate else 200)
        assert len(ends) == infos[0]["episode"]["l"]
        env.close()


def test_action_space_is_seeded_apart(three: MultiTaskVecEnv) -> None:
    three.seed(3)
    first = three.action_space.sample()
    three.seed(3)
    np.testing.assert_array_equal(first, three.action_space.sample())
    three.seed(4)
    assert np.abs(first - three.action_space.sample()).max() > 1e-3


# The reference alone


def test_building_and_resetting_leave_global_state_alone() -> None:
    np.random.seed(1)  # noqa: NPY002
    before, goals = np.random.get_state()[1].copy(), metaworld._N_GOALS  # noqa: NPY002
    env = make_vec_env("push", backend="metaworld", num_goals=1)
    rollout(env, 3)
    env.close()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert goals == metaworld._N_GOALS


@pytest.mark.parametrize(("num_goals", "distinct"), [(1, {1}), (3, {2, 3}), (None, {12})])
def test_the_number_of_goals(num_goals: int | None, distinct: set[int]) -> None:
    env = make_vec_env("pick-place", backend="metaworld", num_goals=num_goals)
    assert env.num_goals == num_goals
    assert len(np.unique(first_observations(env, 12)[:, 0, GOAL], axis=0)) in distinct
    env.close()


def test_fifty_goals_by_default_and_shared_by_the_copies() -> None:
    env = make_vec_env("reach", backend="metaworld", num_envs_per_task=2)
    assert isinstance(env, MetaWorldVecEnv)
    assert env.num_goals == 50
    first, second = env._pool._target.goals  # type: ignore[union-attr]
    assert len(np.unique(first, axis=0)) == 50
    np.testing.assert_array_equal(first, second)
    low, high = [-0.1, 0.6, 0.02, -0.1, 0.8, 0.05], [0.1, 0.7, 0.02, 0.1, 0.9, 0.3]
    assert ((np.array(first) >= low) & (np.array(first) <= high)).all()
    env.close()


def test_vectors_drawn_without_the_arm_are_meta_worlds_own() -> None:
    """Meta-World's unfrozen reset draws twice and keeps the second; the numbers are the same to the bit."""
    built = make_vec_env("MT10", backend="metaworld", num_goals=1)
    for name, env in zip(built.task_names, built._pool._target.envs, strict=True):  # type: ignore[attr-defined]
        generator = np.random.default_rng(5)
        ours = [draw_task_vector(env, generator) for _ in range(4)][1::2]
        env._freeze_rand_vec, env.seeded_rand_vec, env.np_random = False, True, np.random.default_rng(5)
        theirs = []
        for _ in range(2):
            env.reset()
            theirs.append(env._last_rand_vec.copy())
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    built.close()


def test_a_task_is_compiled_once_and_no_environment_sees_what_another_has_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metaworld_rows, "_models", OrderedDict())
    monkeypatch.setattr(metaworld_rows, "KEPT_MODELS", 1)
    first = make_vec_env("door-open", backend="metaworld", num_goals=None)
    expected = rollout(first, 3)  # a reset moves the door, which is part of the model
    with monkeypatch.context() as patch:
        patch.setattr(MujocoEnv, "_initialize_simulation", lambda env: pytest.fail("compiled once more"))
        second = make_vec_env("door-open", backend="metaworld", num_goals=None)
    fresh = ALL_V3_ENVIRONMENTS["door-open-v3"]().model
    ours, moved = (env.get_attr("model")[0] for env in (second, first))
    np.testing.assert_array_equal(ours.body_pos, fresh.body_pos)
    assert not np.array_equal(moved.body_pos, fresh.body_pos), "the comparison above would be empty"
    for one, two in zip(expected, rollout(second, 3), strict=True):
        np.testing.assert_array_equal(one, two)
    make_vec_env("drawer-open", backend="metaworld").close()
    (kept,) = metaworld_rows._models
    assert "drawer" in kept[0], "no more than `KEPT_MODELS` are kept"
    first.close()
    second.close()


def test_a_fresh_goal_is_the_one_that_is_simulated() -> None:
    """Meta-World's unfrozen mode shows one draw and simulates the next; here the handle is at the goal's."""
    env = make_vec_env("window-open", backend="metaworld", num_goals=None)
    observations = first_observations(env, 6)[:, 0]
    np.testing.assert_allclose(np.ptp(observations[:, GOAL] - observations[:, 4:7], axis=0), 0, atol=1e-6)
    assert np.ptp(observations[:, 4]) > 0.01
    env.close()


def test_reward_versions_differ_by_scale() -> None:
    peaks = {}
    for version in ("v1", "v2"):
        env = make_vec_env("pick-place", backend="metaworld", reward_version=version, num_goals=1)
        peaks[version] = np.abs(rollout(env, 20)[1]).max()
        env.close()
    assert peaks["v2"] <= 10
    assert abs(peaks["v1"] - peaks["v2"]) > 1e-3


def test_five_hundred_steps_are_possible() -> None:
    env = make_vec_env("button-press-topdown", backend="metaworld")
    env.reset()
    for number in range(1, 502):
        dones, infos = env.step(np.zeros((1, 4)))[2:]
        assert dones[0] == (number == 500)
        assert ("episode" in infos[0]) == (number == 500)
    env.close()


def test_a_raising_environment_is_named() -> None:
    env = make_vec_env(["reach", "push"], backend="metaworld")
    env.reset()
    env.set_attr("max_path_length", 1, indices=1)  # Meta-World then refuses the second step
    env.step(np.zeros((2, 4)))
    with pytest.raises(EnvironmentFaultError, match="task 'push-v3', environment 1 raised ValueError"):
        env.step(np.zeros((2, 4)))
    env.close()


def test_a_nan_from_the_simulator_is_named() -> None:
    env = make_vec_env(["reach", "push"], backend="metaworld", num_envs_per_task=2)
    env.reset()
    env.step(np.zeros((4, 4)))
    env.set_attr("evaluate_state", lambda obs, action: (float("nan"), {"success": 0.0}), indices=[2])
    with pytest.raises(EnvironmentFaultError, match="reward is nan in task 'push-v3', environment 2, step 2"):
        env.step(np.zeros((4, 4)))
    env.close()


def test_single_environments_are_within_reach() -> None:
    env = make_vec_env(["reach", "push"], backend="metaworld")
    env.reset()
    assert env.get_attr("task_name") == ["reach-v3", "push-v3"]
    assert env.get_attr("max_path_length", [1]) == [500]
    assert not env.has_attr("nothing_like_it")
    env.set_attr("marker", 5, indices=[1])
    assert env.get_attr("marker", [1]) == [5]
    env.set_attr("no_method_of_reach", lambda: None, indices=[1])
    with pytest.raises(MissingMethodError, match="no_method_of_reach"):  # before any is called
        env.env_method("no_method_of_reach")
    positions = env.env_method("get_endeff_pos", indices=[1, 0])
    np.testing.assert_allclose(positions[0], env.reset()[1, :3], atol=1e-2)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sync", "async"])
def test_pictures(strategy: str) -> None:
    """In a process of its own: which GL is used is decided when mujoco is first imported."""
    code = f"""
from mtrl_imgrad.envs import make_vec_env
if __name__ == "__main__":
    env = make_vec_env(["reach", "push"], render_mode="rgb_array", vector_strategy={strategy!r})
    env.reset()
    images = env.get_images()
    print(env.backend, *[image.shape for image in images], images[0].std() > 5, env.render().shape)
    env.close()
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if run.returncode and "GL" in run.stderr:
        pytest.skip(f"no EGL on this machine: {run.stderr.strip().splitlines()[-1]}")
    assert run.stdout.strip() == "metaworld (480, 480, 3) (480, 480, 3) True (960, 480, 3)", run.stderr
