"""MT10's environment steps a second on both back-ends, through `make_vec_env`."""

from __future__ import annotations

import importlib.util

import numpy as np

from benchmarks.timing import in_turn, table
from mtrl_imgrad.envs import make_vec_env

STEPS = 100


def run() -> str:
    """Random actions; CPU time, so EnvPool's threads count in full."""
    backends = ["metaworld"] + (["envpool"] if importlib.util.find_spec("envpool") else [])
    candidates = {}
    for backend in backends:
        env = make_vec_env("MT10", seed=0, backend=backend)
        env.reset()
        actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, env.num_envs, 4)).astype(np.float32)

        def steps(env: object = env, actions: np.ndarray = actions) -> None:
            for action in actions:
                env.step(action)  # type: ignore[attr-defined]

        candidates[backend] = steps
    timings = in_turn(candidates, calls=1, rounds=5, warm_up=1)
    rows = [
        (name, f"{STEPS * 10 / timing.median * 1e3:,.0f}", f"{timings['metaworld'].ratio_to(timing):.2f}")
        for name, timing in timings.items()
    ]
    return table("MT10 simulators", ("back-end", "env steps/CPU s", "speed / metaworld"), rows)
