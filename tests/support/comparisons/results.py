"""Results of runs that nobody trained: ``result.json`` with given success."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASKS = ("reach", "push", "door")


def result(method: str, seed: int, rates: Sequence[float], episodes: int = 50) -> dict[str, Any]:
    """A run of 2000 steps whose success grows in a straight line to ``rates``."""
    steps = [0, 1000, 2000, 2000]
    counts = [[round(rate * share * episodes) for rate in rates] for share in (0, 0.5, 1, 1)]
    returns = [[100.0 * count for count in row] for row in counts]
    evaluation = {
        "timesteps": 2000,
        "protocol": {"deterministic": True, "simulator": "metaworld", "env_seed": 10_000, "timesteps": 2000},
        "episodes": episodes,
        "success": sum(counts[-1]) / episodes / len(rates),
        "successes": counts[-1],
        "returns": returns[-1],
    }
    config = {"env": {"env": ["MT10"]}, "agent": {"name": "mtppo"}, "evaluation": {"eval_goals": "unseen"}}
    logs = {"timesteps": [100, 1100, 1900], "grad/critic/imbalance": [10.0, None, 20.0 + seed]}
    logs |= {"grad/critic/conflict_fraction": [0.1, None, 0.3], "grad/critic/pareto_failure": [1.0, 0.0, 0.0]}
    for k, task in enumerate(TASKS):
        logs |= {f"combiner/critic/weight/{task}": [0.2, 0.3, 0.4], f"train/critic_loss/{task}": [2.0, 1.0, 0.5 + k]}
        logs |= {f"grad/critic/direction_cosine/{task}": [0.5, -0.1 * k, 0.2]}
    cosines = [[[1.0, 0.5, None], [0.5, 1.0, -0.2 * seed], [None, -0.2 * seed, 1.0]], None]
    return {
        "format": 1, "kind": "rl", "method": method, "seed": seed, "tasks": list(TASKS), "config_hash": method,
        "config": config, "versions": {"torch": "2.0"}, "timesteps": 2000, "wall_seconds": 90.0, "cpu_seconds": 120.0,
        "final": evaluation, "best": evaluation, "logs": logs,
        "cosines": {"critic": cosines},
        "curve": {"timesteps": steps, "wall_seconds": [0.0, 45.0, 90.0, 90.0], "cpu_seconds": [0.0, 60.0, 120.0, 120.0],
                  "episodes": [episodes] * 4, "successes": counts, "returns": returns},
    }  # fmt: skip


def write_result(folder: Path, data: dict[str, Any]) -> Path:
    """In ``folder/METHOD/seed_N``."""
    path = folder / data["method"] / f"seed_{data['seed']}" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))
    return path
