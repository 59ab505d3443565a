"""Make the checkpoints of this version that every later version must be able to load: part of making a release.

    python tools/make_release_checkpoint.py

They go to ``tests/data/checkpoints/<version>``, each with a ``<name>.json`` beside it that holds what its agent does,
and are committed. Those of a version that was released are never made again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import mtrl_imgrad
from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.envs import make_vec_env

TARGET = Path(__file__).parents[1] / "tests" / "data" / "checkpoints" / mtrl_imgrad.__version__
COMMON: dict[str, Any] = {"policy_kwargs": {"net_arch": [4]}, "batch_size": 8, "seed": 0, "device": "cpu"}
SAC: dict[str, Any] = {**COMMON, "buffer_size": 48, "learning_starts": 20}
PPO: dict[str, Any] = {**COMMON, "n_steps": 8, "n_epochs": 1, "value_normalization": "popart"}
AGENTS: dict[str, tuple[type[MTSAC] | type[MTPPO], str, dict[str, Any], bool]] = {
    "mtsac": (MTSAC, "gradvac", SAC, True),
    "mtsac_without_replay": (MTSAC, "imgrad", SAC, False),
    "mtppo": (MTPPO, "famo", {**PPO, "combiner_kwargs": {"lower_bound": -1e4}}, True),
}
"""By name: kind, combiner (with a state, and the default), arguments, and whether the replay is saved."""


def main() -> None:
    """Learn for a moment, save in the midst of episodes, and write down what the agents do there."""
    if TARGET.exists():
        sys.exit(f"{TARGET} is there. If this version was not released yet, remove it first")
    torch.set_num_threads(1)
    for name, (kind, combiner, arguments, replay) in AGENTS.items():
        env = make_vec_env("toy-reach", seed=0)
        agent = kind("MlpPolicy", env, combiner=combiner, **arguments)
        agent.learn(4 * 16)
        agent.save_checkpoint(TARGET / name, replay=replay)
        observations = env.reset()
        actions, _ = agent.predict(observations, deterministic=True)
        behaviour = {
            "agent": kind.__name__,
            "replay": replay,
            "num_timesteps": agent.num_timesteps,
            "observations": observations.tolist(),
            "actions": actions.tolist(),
        }
        (TARGET / f"{name}.json").write_text(json.dumps(behaviour, indent=1) + "\n")
        size = sum(path.stat().st_size for path in (TARGET / name).iterdir())
        print(f"{TARGET / name}: {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
