"""Worker processes: what they compute, and what becomes of one that raises, dies or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.envs.backends.metaworld import MetaWorldVecEnv
from mtrl_imgrad.errors import ArgumentError, WorkerError
from tests.support.envs.fake_rows import FakeRows, UnbuildableRows
from tests.support.paths import ROOT

pytestmark = pytest.mark.faults

TASKS = ["reach-v3", "push-v3", "door-open-v3"]


class FakeVecEnv(MetaWorldVecEnv):
    """Three tasks on two workers (the second has two) without a simulator."""

    rows_factory: Callable[[Any], Any] = FakeRows

    def __init__(self, **options: Any) -> None:
        settings = {"vector_strategy": "async", "num_workers": 2, "worker_timeout": 20.0, "horizon": 3}
        super().__init__(TASKS, **{**settings, **options})


@pytest.fixture
def env() -> Iterator[FakeVecEnv]:
    env = FakeVecEnv()
    env.reset()
    yield env
    env.close()


def actions(row: int | None = None, signal_: float = 0.0, rows: int = 3) -> np.ndarray:
    chosen = np.zeros((rows, 4))
    if row is not None:
        chosen[row, 0] = signal_
    return chosen


def runs(pid: int | None) -> bool:
    """Whether the process is alive (what has ended but was not waited for, a zombie, is not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int | None]) -> bool:
    """Whether none of the processes is alive any more, within a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(runs(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def pids(env: MetaWorldVecEnv) -> list[int | None]:
    return env._pool.pids


def test_workers_step_their_share_and_close_twice(env: FakeVecEnv) -> None:
    for number in range(1, 4):
        observations, rewards, dones, infos = env.step(actions())
        np.testing.assert_array_equal(rewards, [0, 1, 2])
        np.testing.assert_array_equal(observations[:, 0], number if number < 3 else 0)
    assert dones.all()
    assert all(info["is_success"] and info["terminal_observation"][0] == 3 for info in infos)
    assert env.get_attr("counts", [2])[0].tolist() == [0, 0]
    assert not env.has_attr("nothing_like_it")
    env.set_attr("marker", "x", indices=[1])
    assert env.get_attr("marker", [1]) == ["x"]
    answers = env.env_method("work", 7, indices=[2, 0], wage=1)
    assert answers == [(2, "work", (7,), {"wage": 1}), (0, "work", (7,), {"wage": 1})]
    running = pids(env)
    env.close()
    env.close()
    assert gone(running)


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_call_that_cannot_be_made_costs_no_worker(restarts: int) -> None:
    env = FakeVecEnv(worker_restarts=restarts)
    env.reset()
    running = pids(env)
    with pytest.raises(AttributeError, match="no_method"):
        env.env_method("no_method")
    for call in (lambda: env.set_attr("marker", lambda: 1), lambda: env.env_method("work", lambda: 1)):
        with pytest.raises(ArgumentError, match="sent to worker processes must be picklable.*lambda"):
            call()
    with pytest.raises(ArgumentError, match="worker processes answer must be picklable.*lambda"):
        env.get_attr("unpicklable", 2)
    assert env.get_attr("counts", [0])[0].tolist() == [0]  # the answer to this request, and to no other
    assert env.step(actions())[0][:, 0].tolist() == [1, 1, 1]
    assert pids(env) == running
    env.close()


def test_the_answer_to_an_interrupted_request_is_not_taken_for_the_next(env: FakeVecEnv) -> None:
    env.step(actions())
    env.step_async(actions())  # Ctrl-C here, before anything is received
    env._stepping = False
    assert env.env_method("work", indices=[1]) == [(1, "work", (), {})]
    assert env.reset()[0, 0] == 0
    assert env.step(actions())[0][2, 0] == 1


def test_a_raising_worker(env: FakeVecEnv) -> None:
    running = pids(env)
    with pytest.raises(
        WorkerError,
        match=r"tasks push-v3, door-open-v3\) raised\n(?s:.*)ZeroDivisionError: the simulator of row 1",
    ):
        env.step(actions(1, 0.1))
    assert gone(running)
    with pytest.raises(WorkerError, match="push-v3"):  # and it stays told
        env.reset()


def test_an_exiting_worker(env: FakeVecEnv) -> None:
    running = pids(env)
    with pytest.raises(WorkerError, match=r"tasks push-v3, door-open-v3\) exited with code 7"):
        env.step(actions(2, 0.3))
    assert gone(running)


def test_a_killed_worker(env: FakeVecEnv) -> None:
    running = pids(env)
    os.kill(running[0], signal.SIGKILL)  # type: ignore[arg-type]
    with pytest.raises(WorkerError, match=r"tasks reach-v3\) was killed by signal 9 \(SIGKILL\)"):
        env.step(actions())
    assert gone(running)


def test_a_hanging_worker() -> None:
    env = FakeVecEnv(worker_timeout=0.5)
    env.reset()
    running = pids(env)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"tasks push-v3, door-open-v3\) did not answer within 0.5 s"):
        env.step(actions(1, 0.2))
    assert time.monotonic() - start < 10
    assert gone(running)
    env.close()


def test_a_worker_that_cannot_be_built() -> None:
    class Broken(FakeVecEnv):
        rows_factory = UnbuildableRows

    with pytest.raises(WorkerError, match=r"(?s)tasks reach-v3.*FileNotFoundError: sawyer.xml"):
        Broken()


def test_workers_end_with_an_environment_that_nobody_closed() -> None:
    env = FakeVecEnv(num_workers=1)
    running = pids(env)
    del env
    assert gone(running)


def test_workers_do_not_outlive_a_killed_parent() -> None:
    code = """
import sys
from types import SimpleNamespace
from mtrl_imgrad.envs.workers.processes import WorkerPool
from tests.support.envs.fake_rows import FakeRows
if __name__ == "__main__":
    configs = [SimpleNamespace(rows=(0,)), SimpleNamespace(rows=(1,))]
    pool = WorkerPool(FakeRows, configs, ["reach", "push"], timeout=20)
    print(*pool.pids, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        children: list[int | None] = [int(pid) for pid in parent.stdout.readline().split()]
        alive = [runs(pid) for pid in children]
        parent.kill()
    assert alive == [True, True]
    assert gone(children)


def test_async_computes_what_sync_computes() -> None:
    results = []
    for strategy in ("sync", "async"):
        env = make_vec_env(
            ["push", "door-open"],
            backend="metaworld",
            vector_strategy=strategy,
            num_envs_per_task=2,
            num_workers=2,
            horizon=4,
            seed=2,
        )
        rng = np.random.default_rng(0)
        states = [env.reset()]
        for _ in range(9):
            observations, rewards, dones, _ = env.step(rng.uniform(-1, 1, (4, 4)))
            states += [observations, rewards, dones]
        env.seed(3)
        states.append(env.reset())
        env.close()
        results.append(states)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
