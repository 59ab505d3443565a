"""One update of MTPPO and of MTSAC on MT10's shapes: replayed, compiled, and compiled with bfloat16 products.

The last only on a processor with instructions for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.gradients.bfloat16 import has_fast_bfloat16

SETTINGS: dict[str, dict[str, Any]] = {
    "replayed": {"compile": False},
    "compiled": {"compile": True},
    "compiled, bf16": {"compile": True, "precision": "bf16"},
}
if not has_fast_bfloat16(torch.device("cpu")):
    del SETTINGS["compiled, bf16"]
PPO_ROWS = 400
"""Of each task in a minibatch."""


def _ppo_update(**setting: Any) -> Callable[[], object]:
    agent = MTPPO(
        "MlpPolicy", make_vec_env("MT10", seed=0), n_steps=PPO_ROWS, batch_size=10 * PPO_ROWS, n_epochs=1, seed=0,
        device="cpu", value_normalization="popart",
        policy_kwargs={"encoder": "one_hot", "net_arch": [256, 256], "layer_norm": {"pi": False, "vf": True}},
        **setting,
    )  # fmt: skip
    agent.learn(10 * PPO_ROWS)
    rollout = agent.rollout_buffer.rollout()
    agent.update.begin(agent._settings(), rollout.returns)
    return lambda: agent.update(rollout)


def _sac_update(net_arch: list[int], rows: int, **setting: Any) -> Callable[[], None]:
    agent = MTSAC(
        "MlpPolicy", make_vec_env("MT10", seed=0), learning_starts=0, batch_size=10 * rows, buffer_size=100_000, seed=0,
        device="cpu", policy_kwargs={"net_arch": net_arch}, **setting,
    )  # fmt: skip
    agent.learn(50)
    return lambda: agent.train(1)


def run() -> str:
    """A table for PPO's update, with and without task gradients, and for two sizes of SAC's."""
    header = ("update", "CPU ms", "time / replayed")
    cases: dict[str, Callable[..., Callable[[], object]]] = {
        f"MTPPO, 2 x 256, {PPO_ROWS} rows a task": _ppo_update,
        f"MTPPO with linear scalarization, 2 x 256, {PPO_ROWS} rows a task": lambda **setting: _ppo_update(
            combiner="linear_scalarization", **setting
        ),
        "MTSAC, 2 x 256, 32 rows a task": lambda **setting: _sac_update([256, 256], 32, **setting),
        "MTSAC, 3 x 400, 128 rows a task": lambda **setting: _sac_update([400, 400, 400], 128, **setting),
    }
    parts = []
    for title, make in cases.items():
        timings = in_turn({name: make(**setting) for name, setting in SETTINGS.items()}, calls=5, rounds=7)
        parts.append(table(title, header, against("replayed", timings)))
    return "\n".join(parts)
