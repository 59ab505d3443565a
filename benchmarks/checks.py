"""What argument checks would cost on the hot path: a step's transition, and learning, with and without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gymnasium import spaces

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.agents import MTSAC, TaskReplayBuffer
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.validation import checked

STEPS = 20


class CheckedReplay(TaskReplayBuffer):
    """The replay with its arguments checked at every step and update."""

    add = checked(TaskReplayBuffer.add)
    sample = checked(TaskReplayBuffer.sample)


REPLAYS = {"unchecked": TaskReplayBuffer, "checked": CheckedReplay}


def _add(replay: type[TaskReplayBuffer], num_tasks: int) -> Callable[[], None]:
    """A function that stores a vector step of MT10's shapes."""
    box = spaces.Box(-1, 1, (39 + num_tasks,), np.float32)
    names = [f"task-{i}" for i in range(num_tasks)]
    buffer = replay(1000 * num_tasks, box, spaces.Box(-1, 1, (4,), np.float32), "cpu", num_tasks, task_names=names)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.uniform(-1, 1, (2, num_tasks, 39 + num_tasks)).astype(np.float32)
    action, reward = rng.uniform(-1, 1, (num_tasks, 4)).astype(np.float32), np.ones(num_tasks, np.float32)
    infos = _infos(num_tasks)
    return lambda: buffer.add(obs, next_obs, action, reward, np.zeros(num_tasks, bool), infos)


def _infos(num_tasks: int) -> list[dict[str, object]]:
    """Those of a Meta-World step, for so many tasks."""
    env = make_vec_env("MT10", seed=0)
    env.reset()
    infos = env.step(np.zeros((10, 4), np.float32))[3]
    env.close()
    return [dict(infos[i % 10]) for i in range(num_tasks)]


def _agent(replay: type[TaskReplayBuffer]) -> MTSAC:
    env = make_vec_env("MT10", seed=0)
    agent = MTSAC(
        "MlpPolicy", env, learning_starts=0, batch_size=320, seed=0, device="cpu", buffer_size=200_000,
        replay_buffer_class=replay, policy_kwargs={"net_arch": [64, 64]},
    )  # fmt: skip
    agent.learn(20 * env.num_envs)
    return agent


def _collect(agent: MTSAC) -> Callable[[], object]:
    """A function that collects `STEPS` vector steps, without an update."""
    agent.gradient_steps = 0
    return lambda: agent.learn(STEPS * agent.n_envs, reset_num_timesteps=False, log_interval=None)


def _train(agent: MTSAC) -> Callable[[], None]:
    return lambda: agent.train(STEPS)


def run() -> str:
    """Tables for ``add`` with 10 and 50 tasks, ``collect_rollouts`` and ``train``."""
    header = ("arguments", "CPU ms", "time / unchecked")
    parts = []
    for num_tasks in (10, 50):
        candidates = {name: _add(replay, num_tasks) for name, replay in REPLAYS.items()}
        timings = in_turn(candidates, calls=2000, rounds=7)
        parts.append(table(f"`TaskReplayBuffer.add`, K = {num_tasks}", header, against("unchecked", timings)))
    for title, timed in (("collect_rollouts", _collect), ("train", _train)):
        timings = in_turn({name: timed(_agent(replay)) for name, replay in REPLAYS.items()}, calls=1, rounds=7)
        what = f"`MTSAC.{title}` on MT10, [64, 64], {STEPS} steps"
        parts.append(table(what, header, against("unchecked", timings)))
    return "\n".join(parts)
