"""Episodes that are restored in another environment go on as in the first, whatever simulates them."""

import numpy as np
import pytest

from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError

pytestmark = pytest.mark.faults

HORIZON = 10


def _actions(env, steps, seed=0):
    shape = (steps, env.num_envs, *env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _assert_goes_on(env, other, steps):
    for actions in _actions(env, steps, seed=1):
        ours, theirs = env.step(actions), other.step(actions)
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(ours[3], theirs[3], strict=True):
            assert {**a, "episode": None, "terminal_observation": None} == {
                **b,
                "episode": None,
                "terminal_observation": None,
            }
            if "episode" in a:
                assert (a["episode"]["r"], a["episode"]["l"]) == (b["episode"]["r"], b["episode"]["l"])
                assert np.array_equal(a["terminal_observation"], b["terminal_observation"])


TASKS = [
    ("toy-reach", {"num_envs_per_task": 3}),
    ("toy-reach", {"terminate_on_success": True}),
    (["reach-v3", "pick-place-v3", "door-open-v3"], {"backend": "envpool", "num_envs_per_task": 2}),
    (["reach-v3", "drawer-open-v3"], {"backend": "metaworld", "num_envs_per_task": 2}),
    (["reach-v3", "window-close-v3"], {"backend": "metaworld", "num_goals": None}),
    (["reach-v3", "push-v3"], {"backend": "metaworld", "vector_strategy": "async", "num_workers": 1}),
]
IN_WORKERS = ("vector_strategy", "num_workers")
STEPS = (17, 0, 20)
"""17: in the midst of the second episode. 20: where the third has just begun."""


@pytest.mark.parametrize(
    ("tasks", "options", "steps"),
    # Simulators start slowly: once is enough, but for the slow tests of one of them.
    [
        pytest.param(*case, steps, marks=pytest.mark.slow if steps != STEPS[0] and "backend" in case[1] else ())
        for case in TASKS
        for steps in STEPS
        if steps == STEPS[0] or case[1].get("backend") != "metaworld"
    ],
)
def test_restored_episodes_go_on(tasks, options, steps, tmp_path):
    options = {"horizon": HORIZON, **options}
    env = make_vec_env(tasks, seed=0, **options)
    # From workers into this process, and back: they start slowly.
    other = make_vec_env(tasks, seed=1, **{k: v for k, v in options.items() if k not in IN_WORKERS})
    env.seed(5)
    env.reset()
    for actions in _actions(env, steps):
        env.step(actions)
    write_checkpoint(tmp_path / "it", {"state": env.get_state()})
    state = read_checkpoint(tmp_path / "it")["state"]
    other.reset()
    other.set_state(state)
    _assert_goes_on(env, other, 12)
    for one in (env, other):
        one.set_state(state)
        again = one.get_state()
        assert np.array_equal(again["observations"], state["observations"]), "also by one that is in use"
    _assert_goes_on(env, other, 3)
    env.close()
    other.close()


def test_rows_of_different_age():
    env, other = (make_vec_env("toy-reach", seed=0, terminate_on_success=True) for _ in range(2))
    observations = env.reset()
    for _ in range(15):
        actions = env.optimal_action(observations)
        actions[0] = 0  # one row never gets there
        observations = env.step(actions)[0]
    state = env.get_state()
    assert len(set(state["episodes"]["lengths"].tolist())) > 1
    other.set_state(state)
    _assert_goes_on(env, other, 40)


@pytest.mark.parametrize("backend", ["envpool", "metaworld"])
def test_rows_of_different_age_on_the_simulators(backend, monkeypatch):
    env, other = (make_vec_env(["reach-v3", "push-v3"], seed=0, horizon=HORIZON, backend=backend) for _ in range(2))
    for one in (env, other):
        one.terminate_on_success = True
        one._episodes._terminate_on_success = True
        receive = one._recv

        def recv(one=one, receive=receive):
            states, rewards, _ = receive()
            return states, rewards, (one._episodes.lengths + 1 >= [7, 9])  # an end that depends on the row

        monkeypatch.setattr(one, "_recv", recv)
    env.reset()
    for actions in _actions(env, 16):
        env.step(actions)
    state = env.get_state()
    assert len(set(state["episodes"]["lengths"].tolist())) == 2
    other.set_state(state)
    _assert_goes_on(env, other, 12)


def test_before_the_first_reset_there_is_nothing():
    assert make_vec_env("toy-reach", seed=0).get_state() is None


def test_a_pending_seed_is_kept():
    env, other = make_vec_env("toy-reach", seed=0), make_vec_env("toy-reach", seed=0)
    env.reset()
    env.seed(9)
    other.set_state(env.get_state())
    assert np.array_equal(env.reset(), other.reset())


def test_another_environment_or_simulator_is_refused():
    env = make_vec_env("toy-reach", seed=0)
    env.reset()
    for actions in _actions(env, 3):
        env.step(actions)
    state = env.get_state()
    with pytest.raises(ArgumentError, match="num_envs_per_task=1, this one has 2"):
        make_vec_env("toy-reach", seed=0, num_envs_per_task=2).set_state(state)
    other = make_vec_env("toy-reach", seed=0)
    state["actions"][1, 2] += 1e-3
    with pytest.raises(EnvironmentFaultError, match=r"task 'toy-reach/\w+', environment 2, is .* away"):
        other.set_state(state)
    with pytest.raises(EnvironmentFaultError, match="call reset first"):
        other.step(_actions(other, 1)[0])
