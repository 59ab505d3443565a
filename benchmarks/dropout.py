"""An update of MTSAC with dropout beside the same without."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env

TASKS = 10
RATES = {
    "none": {"pi": 0.0, "qf": 0.0},
    "critics 0.01": {"pi": 0.0, "qf": 0.01},
    "critics and actor 0.01": {"pi": 0.01, "qf": 0.01},
}


def _trainer(dropout: dict[str, float], net_arch: list[int], rows: int) -> Callable[[], object]:
    """A function that draws a batch and all noise, and makes one update on it."""
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env("MT10", seed=0),
        learning_starts=0,
        gradient_steps=0,
        batch_size=rows * TASKS,
        buffer_size=20_000,
        policy_kwargs={"net_arch": net_arch, "layer_norm": {"pi": False, "qf": True}, "dropout": dropout},
        seed=0,
        device="cpu",
    )
    agent.learn(50 * TASKS)
    return lambda: agent.train(1)


def run() -> str:
    """Default encoder and combiner (multi_head, IMGrad), critics with layer normalization, as in DroQ."""
    parts = []
    for net_arch, rows, calls in (([400, 400, 400], 128, 2), ([256, 256], 32, 10)):
        trainers = {name: _trainer(dropout, net_arch, rows) for name, dropout in RATES.items()}
        timings = in_turn(trainers, calls=calls, rounds=15)
        title = f"Update of MTSAC with dropout, {net_arch}, {rows} rows a task"
        parts.append(table(title, ("dropout", "CPU ms", "time / none"), against("none", timings)))
    return "\n".join(parts)
