"""A worker that raises, exits, is killed or hangs is replaced, and nobody can tell from what comes next."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.envs.backends.metaworld import MetaWorldVecEnv
from mtrl_imgrad.errors import ArgumentError, WorkerError
from tests.support.envs.frail_rows import FOLDER, KINDS, ForgetfulRows, FrailRows, order

pytestmark = pytest.mark.faults

TASKS = ["reach-v3", "push-v3", "door-open-v3"]
CAUSES = {
    "raise": r"raised\n(?s:.*)ZeroDivisionError: row 1 fell over",
    "exit": "exited with code 7",
    "kill": r"was killed by signal 9 \(SIGKILL\)",
    "hang": "did not answer within 2 s",
}
HORIZON = 12


class FrailVecEnv(MetaWorldVecEnv):
    """Three tasks on two workers, the second of which (push, door-open) fails on demand."""

    rows_factory: Callable[[Any], Any] = FrailRows

    def __init__(self, **options: Any) -> None:
        settings = {"vector_strategy": "async", "num_workers": 2, "worker_timeout": 20.0, "horizon": HORIZON}
        super().__init__(TASKS, **{**settings, "terminate_on_success": True, **options})


class ForgetfulVecEnv(FrailVecEnv):
    rows_factory = ForgetfulRows


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def make(orders: Path) -> Iterator[Callable[..., FrailVecEnv]]:
    """Build environments that are closed at the end, whatever happens."""
    built: list[FrailVecEnv] = []

    def build(kind: type[FrailVecEnv] = FrailVecEnv, **options: Any) -> FrailVecEnv:
        built.append(kind(**options))
        return built[-1]

    yield build
    for env in built:
        env.close()


def undisturbed() -> FrailVecEnv:
    """The same rows in this process, where nobody orders a failure."""
    return FrailVecEnv(vector_strategy="sync", num_workers=None)


def pids(env: MetaWorldVecEnv) -> list[int]:
    return [pid for pid in env._pool.pids if pid is not None]


def gone(processes: list[int]) -> bool:
    """Whether none of them runs any more, within a moment; a zombie does not run."""
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def same(ours: Any, theirs: Any) -> None:
    """Equal bit for bit, but for the seconds that an episode took."""
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(ours[3], theirs[3], strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"episode"}:
            np.testing.assert_array_equal(a[key], b[key])
        assert {**a.get("episode", {}), "t": 0} == {**b.get("episode", {}), "t": 0}


class Pair:
    """An environment whose workers fail, and one that is spared, stepped alike."""

    def __init__(self, env: FrailVecEnv) -> None:
        self.env, self.spared = env, undisturbed()
        self.draw = np.random.default_rng(0)
        self.reset()

    def reset(self) -> None:
        np.testing.assert_array_equal(self.env.reset(), self.spared.reset())

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            actions = self.draw.uniform(-1, 1, (3, 4)).astype(np.float32)
            same(self.env.step(actions), self.spared.step(actions))


def restart(pair: Pair, kind: str, act: Callable[[], None]) -> None:
    """``act`` is disturbed by a failure and restarts the workers, leaving none of the old."""
    old = pids(pair.env)
    with pytest.warns(UserWarning, match=rf"tasks push-v3, door-open-v3\) {CAUSES[kind]}(?s:.*)were restarted"):
        act()
    assert gone(old)
    assert len(pids(pair.env)) == 2
    pair.step(3)


def disturb(pair: Pair, orders: Path, kind: str, place: str) -> None:
    pair.step(5)
    order(orders, "step" if place == "step" else "reset", kind)
    if place == "step":
        assert len(set(pair.env._episodes.lengths)) > 1, "rows of different age are the harder case"
        restart(pair, kind, pair.step)
    elif place == "reset within a step":
        restart(pair, kind, lambda: pair.step(HORIZON))
    else:
        restart(pair, kind, pair.reset)


def test_steps_and_resets_after_a_restart_are_those_of_workers_that_never_failed(make: Any, orders: Path) -> None:
    pair = Pair(make(worker_restarts=3))
    disturb(pair, orders, "raise", "step")
    disturb(pair, orders, "kill", "reset within a step")
    disturb(pair, orders, "exit", "reset")
    # The three are used up: what comes now is an error as ever.
    old = pids(pair.env)
    order(orders, "step", "exit")
    with pytest.raises(WorkerError, match=r"push-v3, door-open-v3\) exited with code 7$"):
        pair.step()
    assert gone(old)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_failure_in_every_place(kind: str, make: Any, orders: Path) -> None:
    pair = Pair(make(worker_restarts=4, worker_timeout=2.0))
    for place in ("step", "reset within a step", "reset", "step"):
        disturb(pair, orders, kind, place)


def test_a_worker_that_dies_while_idle_is_missed_at_the_next_call(make: Any, orders: Path) -> None:
    pair = Pair(make(worker_restarts=2))
    pair.step(5)
    os.kill(pids(pair.env)[1], signal.SIGKILL)
    restart(pair, "kill", pair.step)
    for env in (pair.env, pair.spared):
        env.seed(9)
    os.kill(pids(pair.env)[1], signal.SIGKILL)
    restart(pair, "kill", pair.reset)


def test_what_fails_twice_in_a_row_is_not_tried_again(make: Any, orders: Path) -> None:
    env = make(worker_restarts=5, worker_timeout=2.0)
    env.reset()
    order(orders, "step", "hang", times=2)
    before = pids(env)
    with (
        pytest.warns(UserWarning, match="restarted .1 of 5 times"),
        pytest.raises(WorkerError, match=r"did not answer within 2 s(?s:.*)had just failed before"),
    ):
        env.step(np.zeros((3, 4)))
    assert gone(before)
    assert pids(env) == []
    with pytest.warns(UserWarning, match="restarted .2 of 5 times"):
        env.reset()  # and whoever goes on may
    env.step(np.zeros((3, 4)))


def test_rows_that_cannot_be_brought_back_are_not_passed_off(make: Any, orders: Path) -> None:
    env = make(ForgetfulVecEnv, worker_restarts=5)
    env.reset()
    env.step(np.zeros((3, 4)))
    order(orders, "step", "exit")
    with pytest.raises(
        WorkerError,
        match=r"exited with code 7(?s:.*)could not be brought back: task 'reach-v3', environment 0, is .* away from",
    ):
        env.step(np.zeros((3, 4)))
    assert pids(env) == []
    with pytest.raises(WorkerError):
        env.reset()


def test_workers_whose_environments_were_changed_from_outside_are_not_restarted(make: Any, orders: Path) -> None:
    env = make(worker_restarts=5)
    env.reset()
    env.env_method("render")  # changes nothing
    env.env_method("set_wind", 3.0)
    os.kill(pids(env)[0], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"SIGKILL\)\nThe workers were not restarted: env_method\('set_wind'\)"):
        env.step(np.zeros((3, 4)))


def test_restarts_need_workers() -> None:
    with pytest.raises(ArgumentError, match="worker_restarts=2 needs worker processes, vector_strategy='async'"):
        make_vec_env("MT10", worker_restarts=2)
    with pytest.raises(ArgumentError, match="worker_restarts must be an integer >= 0"):
        make_vec_env("MT10", vector_strategy="async", worker_restarts=-1)


def test_an_agent_learns_the_same(make: Any, orders: Path) -> None:
    def parameters(env: FrailVecEnv) -> torch.Tensor:
        options = {"learning_starts": 30, "batch_size": 12, "buffer_size": 300, "policy_kwargs": {"net_arch": [8]}}
        agent = MTSAC("MlpPolicy", env, seed=0, device="cpu", trace=False, **options)
        agent.learn(60)
        if isinstance(env._pool, type(undisturbed()._pool)):
            agent.learn(60, reset_num_timesteps=False)
        else:
            order(orders, "step", "kill")
            with pytest.warns(UserWarning, match="were restarted"):
                agent.learn(60, reset_num_timesteps=False)
        return torch.nn.utils.parameters_to_vector(agent.policy.parameters())

    assert torch.equal(parameters(make(worker_restarts=1)), parameters(undisturbed()))


@pytest.mark.parametrize("num_goals", [50, pytest.param(None, marks=pytest.mark.slow)])
def test_metaworld_goes_on_in_the_midst_of_its_episodes(num_goals: int | None) -> None:
    options: dict[str, Any] = {"backend": "metaworld", "horizon": 8, "num_goals": num_goals, "seed": 3}
    tasks = ["pick-place-v3", "window-close-v3"]
    env = make_vec_env(tasks, vector_strategy="async", num_workers=1, worker_restarts=1, **options)
    spared = make_vec_env(tasks, **options)
    assert isinstance(env, MetaWorldVecEnv)
    draw = np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(), spared.reset())
    for number in range(18):
        actions = draw.uniform(-1, 1, (2, 4))
        if number == 13:
            os.kill(pids(env)[0], signal.SIGKILL)
            with pytest.warns(UserWarning, match=r"tasks pick-place-v3, window-close-v3\) was killed by signal 9"):
                same(env.step(actions), spared.step(actions))
        else:
            same(env.step(actions), spared.step(actions))
    env.close()
