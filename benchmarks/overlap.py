"""Updates while the environments simulate, by wall clock: it needs a second core that nothing else uses."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env

COPIES = (1, 4, 8)
"""Environments of each of the ten tasks."""


def _learner(copies: int, overlap: bool) -> Callable[[], object]:
    """A function that makes twenty vector steps with an update in each."""
    env = make_vec_env("MT10", seed=0, backend="envpool", num_envs_per_task=copies)
    agent = MTSAC(
        "MlpPolicy",
        env,
        learning_starts=0,
        batch_size=320,
        buffer_size=200_000,
        seed=0,
        device="cpu",
        overlap=overlap,
        policy_kwargs={"net_arch": [256, 256], "encoder": "one_hot"},
    )
    agent.learn(20 * env.num_envs)
    return lambda: agent.learn(20 * env.num_envs, reset_num_timesteps=False, log_interval=None)


def run() -> str:
    """MTSAC with IMGrad on EnvPool."""
    parts = []
    for copies in COPIES:
        learners = {f"overlap={overlap}": _learner(copies, overlap) for overlap in (False, True)}
        timings = in_turn(learners, calls=1, rounds=7, warm_up=1, clock=time.perf_counter)
        rows = against("overlap=False", timings)
        title = f"MTSAC, 2 x 256, 32 rows a task, {copies} environments a task: twenty vector steps with an update each"
        parts.append(table(title, ("", "wall ms", "ratio"), rows))
    return "\n".join(parts)
