"""What combiners and agents do over several steps, in a few numbers: what `snapshots.json` holds.

Golden vectors and oracles (tests/combiners) say what is right for a step. These numbers say what was: they hold every
combiner and agent to itself, its memory included, while code is moved. As a program this writes the file anew, and says
what moved:

    python -m tests.snapshots.summaries

Processors round differently, so numbers are kept only as far as no rounding grows in them. Writing a summary repeats
its run on the imitated machines of tests/support/rounding.py; it ends before the first step that any of them moves by
more than `LIMIT`, and the file says how far they moved the steps before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import make_vec_env
from tests.support.combiners.examples import list_variants
from tests.support.paths import DATA
from tests.support.rounding import OtherRounding

FILE = DATA / "snapshots.json"
COMMAND = "python -m tests.snapshots.summaries"

NUM_TASKS, WIDTH, STEPS = 4, 6, 14
RECORDED = (0, 1, 2, 5, 9, 13)
"""Steps; the last are beyond the windows of all methods that count them."""
MACHINES = range(1, 6)
"""Seeds of `OtherRounding` with which a summary is written."""
LIMIT = 2e-6
"""A step that one of `MACHINES` moves by more, of its largest number, is not kept, nor any after it."""
MARGIN, FLOOR = 100, 1e-9
"""The tolerance of a summary: so many times what `MACHINES` moved it, and never less than this."""

Summary = list[list[float]]
"""Measures of each step that was recorded."""


def list_summaries() -> dict[str, Callable[[], Summary]]:
    """Functions that find the summaries, by name."""
    combiners = {f"combiner {word}": partial(of_combiner, *what) for word, what in list_variants(NUM_TASKS).items()}
    return combiners | {f"agent {word}": partial(of_agent, *what) for word, what in AGENT_RUNS.items()}


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers in [-1, 1] without a pattern, that no generator draws: float64."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(index * index * 0.7 + index * 1.3 + phase).reshape(shape)


def measures(vector: Tensor) -> list[float]:
    """The length of a vector and two projections."""
    flat = vector.detach().double().flatten()
    return [float(flat.norm()), *(float(flat @ waves(len(flat), phase=phase)) for phase in (0.0, 1.0))]


# ---------------------------------------------------------------------- combiners


def of_combiner(name: str, arguments: dict[str, Any]) -> Summary:
    """Measures of the combined gradients along a descent of four quadratic losses of different scale and optimum."""
    combiner = make_combiner(name, **arguments)
    point = waves(WIDTH, phase=2.0).requires_grad_()
    found = []
    for step in range(STEPS):
        point.grad = None
        combiner.backward(_losses(point), [point])
        if step in RECORDED:
            found.append(measures(point.grad))
        with torch.no_grad():
            point -= 0.05 * point.grad
        if combiner.needs_losses_after_step:
            combiner.after_step(torch.stack(_losses(point)).detach())
    return found


def _losses(point: Tensor) -> list[Tensor]:
    maps, optima = waves(NUM_TASKS, WIDTH, WIDTH), 2 * waves(NUM_TASKS, WIDTH, phase=1.0)
    return [2.0**task * (0.5 * (maps[task] @ (point - optima[task])).square().sum() + 0.1) for task in range(NUM_TASKS)]


# ---------------------------------------------------------------------- agents

COMMON = {"learning_rate": 1e-3, "seed": 0, "device": "cpu", "trace": False}
SAC = {"learning_starts": 60, "batch_size": 32, "buffer_size": 800, **COMMON}
PPO = {"n_steps": 20, "batch_size": 40, "n_epochs": 2, **COMMON}
AGENT_RUNS = {
    "mtsac imgrad multi_head": (MTSAC, "imgrad", "multi_head", SAC),
    "mtsac gradvac one_hot": (MTSAC, "gradvac", "one_hot", {**SAC, "reward_normalization": "std"}),
    "mtsac pcgrad care": (MTSAC, "pcgrad", "care", SAC),
    "mtsac moco moore": (MTSAC, "moco", "moore", {**SAC, "ent_coef": "shared_0.1"}),
    "mtppo imgrad multi_head": (MTPPO, "imgrad", "multi_head", PPO),
    "mtppo fairgrad one_hot popart": (MTPPO, "fairgrad", "one_hot", {**PPO, "value_normalization": "popart"}),
    "mtppo gradvac embedding": (MTPPO, "gradvac", "embedding", PPO),
    "mtppo uw film": (MTPPO, "uw", "film", {**PPO, "ent_coef": 0.01}),
}


ANSWERED_AT = (4, 84, 164)
"""Time steps: before the first update, and after 4 to 25 of them."""


def of_agent(kind: Any, combiner: str, encoder: str, arguments: dict[str, Any]) -> Summary:
    """Measures of what actor and critic answer to fixed observations in the course of a short training."""
    policy_kwargs = {"net_arch": [16, 16], "encoder": encoder}
    env = make_vec_env("toy-reach", seed=0)
    agent = kind("MlpPolicy", env, combiner=combiner, policy_kwargs=policy_kwargs, **arguments)
    found = []

    def answer(*_: Any) -> bool:
        if agent.num_timesteps in ANSWERED_AT:
            found.append(_answers(agent))
        return True

    agent.learn(ANSWERED_AT[-1], callback=answer)
    return found


@torch.no_grad()
def _answers(agent: Any) -> list[float]:
    observations = torch.cat([waves(NUM_TASKS * 4, 4), torch.eye(NUM_TASKS).repeat(4, 1)], dim=1).float()
    actions = waves(NUM_TASKS * 4, 2, phase=1.0).float()
    acted = agent.predict(observations.numpy(), deterministic=True)[0]
    values = (
        agent.critic(observations, actions) if isinstance(agent, MTSAC) else agent.policy.predict_values(observations)
    )
    return [*measures(torch.as_tensor(acted)), *measures(torch.stack(list(values)))]


# ---------------------------------------------------------------------- the file


def read() -> dict[str, dict[str, Any]]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def distances(ours: Summary, theirs: Summary) -> list[float]:
    """The largest difference of each step that both have, in units of its largest number."""
    pairs = ((np.array(a), np.array(b)) for a, b in zip(ours, theirs, strict=False))
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs]


def write_down(find: Callable[[], Summary]) -> dict[str, Any]:
    """A summary as the file holds it: the steps that every machine finds, and how far `MACHINES` moved them."""
    steps, moved = find(), []
    for seed in MACHINES:
        with OtherRounding(seed):
            moved.append(distances(find(), steps))
    by_step = np.max(moved, axis=0)
    kept = int((np.maximum.accumulate(by_step) <= LIMIT).sum())
    if kept < 2:
        raise ValueError(f"rounding moves this summary by {by_step[:2]} from its first steps on: it is no use here")
    return {"moved_by_rounding": float(f"{by_step[:kept].max():.1e}"), "steps": steps[:kept]}


def tolerance(kept: dict[str, Any]) -> float:
    return max(FLOOR, MARGIN * kept["moved_by_rounding"])


def has_moved(find: Callable[[], Summary], kept: dict[str, Any]) -> float:
    """How far a summary is from what is kept of it, in units of the tolerance; infinite if it has fewer steps."""
    found = find()
    return max(distances(found, kept["steps"])) / tolerance(kept) if len(found) >= len(kept["steps"]) else math.inf


def main() -> None:
    """Write the file, and print every summary that is new, gone, or moved beyond its tolerance."""
    before, now = read(), {}
    for name, find in sorted(list_summaries().items()):
        if name in before and (moved := has_moved(find, before[name])) <= 1:
            now[name] = before[name]  # another machine's rounding is no news
            continue
        now[name] = write_down(find)
        news = f"moved by {moved:.1e} tolerances" if name in before else "new"
        print(f"{name}: {news}; {len(now[name]['steps'])} steps, tolerance {tolerance(now[name]):.0e}", flush=True)
    for name in sorted(before.keys() - now.keys()):
        print(f"{name}: gone")
    lines = (f"{json.dumps(name)}: {json.dumps(kept)}" for name, kept in now.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
