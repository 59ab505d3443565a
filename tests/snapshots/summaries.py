"""What combiners and agents do over several steps, in a few numbers: what `snapshots.json` holds.

Golden vectors and oracles (tests/combiners) say what is right for a step. These numbers say what was: they hold every
combiner and agent to itself, its memory included, while code is moved. As a program this writes the file anew, and says
what moved:

    python tests/snapshots/summaries.py
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "combiners"))  # as pytest does

from combiner_examples import list_variants

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import make_vec_env

FILE = Path(__file__).parents[1] / "data" / "snapshots.json"
COMMAND = "python tests/snapshots/summaries.py"

NUM_TASKS, WIDTH, STEPS = 4, 6, 14
RECORDED = (0, 1, 2, 5, 9, 13)
"""Steps; the last are beyond the windows of all methods that count them."""
COMBINER_TOLERANCE, AGENT_TOLERANCE = 1e-9, 1e-4
"""Of the largest number of a summary. Processors round differently, so bits are not compared: `test_snapshots` shows
that a disturbance of the size of a rounding, of float64 for combiners and of float32 for agents, moves the numbers by
less than a tenth of this. A run that enlarges such a disturbance is no use here (`mtppo` with `embedding`
and `db_mtl` moved by 6 %)."""


def list_summaries() -> dict[str, Any]:
    """By name: how to find the summary, a function of the size of a disturbance."""
    combiners = {f"combiner {word}": (of_combiner, variant) for word, variant in list_variants(NUM_TASKS).items()}
    return combiners | {f"agent {word}": (of_agent, run) for word, run in AGENT_RUNS.items()}


def tolerance(name: str) -> float:
    return COMBINER_TOLERANCE if name.startswith("combiner") else AGENT_TOLERANCE


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers in [-1, 1] without a pattern, that no generator draws: float64."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(index * index * 0.7 + index * 1.3 + phase).reshape(shape)


def measures(vector: Tensor) -> list[float]:
    """The length of a vector and two projections."""
    flat = vector.detach().double().flatten()
    return [float(flat.norm()), *(float(flat @ waves(len(flat), phase=phase)) for phase in (0.0, 1.0))]


# ---------------------------------------------------------------------- combiners


def of_combiner(variant: tuple[str, dict[str, Any]], disturbance: float = 0.0) -> list[float]:
    """Measures of the combined gradients along a descent of four quadratic losses of different scale and optimum."""
    name, arguments = variant
    combiner = make_combiner(name, **arguments)
    point = (waves(WIDTH, phase=2.0) + disturbance * waves(WIDTH, phase=3.0)).requires_grad_()
    found = []
    for step in range(STEPS):
        point.grad = None
        combiner.backward(_losses(point), [point])
        if step in RECORDED:
            found += measures(point.grad)
        with torch.no_grad():
            point -= 0.05 * point.grad
        if combiner.wants_losses_after:
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


def of_agent(run: tuple[Any, str, str, dict[str, Any]], disturbance: float = 0.0) -> list[float]:
    """Measures of what actor and critic answer to fixed observations, before and after a short training."""
    kind, combiner, encoder, arguments = run
    policy_kwargs = {"net_arch": [16, 16], "encoder": encoder}
    agent = kind(
        "MlpPolicy", make_vec_env("toy-reach", seed=0), combiner=combiner, policy_kwargs=policy_kwargs, **arguments
    )
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter *= 1 + disturbance * waves(*parameter.shape, phase=3.0).to(parameter.dtype)
    before = _answers(agent)
    agent.learn(240)
    return before + _answers(agent)


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


def read() -> dict[str, list[float]]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def distance(ours: list[float], theirs: list[float]) -> float:
    """The largest difference, in units of the largest number."""
    if len(ours) != len(theirs):
        return math.inf
    a, b = np.array(ours), np.array(theirs)
    return float(np.abs(a - b).max() / np.abs(b).max())


def main() -> None:
    """Write the file, and print every summary that is new, gone, or moved beyond its tolerance."""
    before = read()
    now = {name: find(what) for name, (find, what) in list_summaries().items()}
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            print(f"new      {name}")
        elif name not in now:
            print(f"gone     {name}")
        elif (moved := distance(now[name], before[name])) > tolerance(name):
            print(f"{moved:8.1e} {name}")
        else:
            now[name] = before[name]  # another machine's rounding is no news
    lines = (f"{json.dumps(name)}: {json.dumps(now[name])}" for name in sorted(now))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
