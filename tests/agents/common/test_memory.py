"""A long training does not grow: what a process holds after thousands of updates is what it held after the first."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from mtrl_imgrad.agents import MTPPO, MTSAC, GradientDiagnosticsCallback, MTEvalCallback
from mtrl_imgrad.envs import make_vec_env

pytestmark = pytest.mark.faults

MEGABYTE = 2**20
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [16]}, "seed": 0, "device": "cpu", "stats_window_size": 20}


def sac() -> MTSAC:
    """Combiners that keep a state, and a replay that is soon full."""
    env = make_vec_env("toy-reach", seed=0, terminate_on_success=True)
    combiner = {"actor": "gradvac", "critic": "moco"}
    options = {"learning_starts": 40, "batch_size": 16, "buffer_size": 2000, "combiner": combiner, **SMALL}
    return MTSAC("MlpPolicy", env, reward_normalization="std", **options)


def ppo() -> MTPPO:
    """Four updates a rollout of 8 steps."""
    env = make_vec_env("toy-reach", seed=0, terminate_on_success=True)
    combiner = {"actor": "gradvac", "critic": "famo"}
    options = {"n_steps": 8, "batch_size": 32, "n_epochs": 4, "combiner": combiner, **SMALL}
    return MTPPO("MlpPolicy", env, value_normalization="popart", **options)


STEPS_OF_AN_UPDATE: dict[Callable[[], MTSAC | MTPPO], int] = {sac: 4, ppo: 8}
"""Environment steps over all tasks that go with an update."""


class Footprint:
    """What this process holds, looked at after a collection of garbage."""

    def __init__(self) -> None:
        gc.collect()
        self.resident = _resident()
        found = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]  # no traced fakes
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}
        self.tensors = sum(storages.values())
        del found
        self.objects = len(gc.get_objects())


def _resident() -> int:
    """Bytes of resident memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class Watch(BaseCallback):
    """Takes the footprint at two numbers of updates."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__()
        self.steps = steps
        self.found: list[Footprint] = []

    def _on_step(self) -> bool:
        if self.steps and self.num_timesteps >= self.steps[0]:
            self.steps.pop(0)
            self.found.append(Footprint())
        return True


def grow(
    make: Callable[[], MTSAC | MTPPO], updates: int, evaluations: int, warm_up: int, folder: Path
) -> tuple[Footprint, Footprint]:
    """Train with logs, diagnostics and evaluations; the footprints after the warm-up and at the end."""
    agent = make()
    formats = [CSVOutputFormat(str(folder / "it.csv")), TensorBoardOutputFormat(str(folder))]
    agent.set_logger(Logger(str(folder), formats))
    per_update = STEPS_OF_AN_UPDATE[make]
    watch = Watch([warm_up * per_update, (warm_up + updates) * per_update])
    every = updates * per_update // evaluations // agent.n_envs
    evaluation = MTEvalCallback(
        make_vec_env("toy-reach", seed=1), n_eval_episodes=2, eval_freq=every, log_path=folder, verbose=0
    )
    try:
        agent.learn((warm_up + updates) * per_update + 100, [GradientDiagnosticsCallback(20), evaluation, watch])
    finally:
        agent.logger.close()
    before, after = watch.found
    assert len(evaluation.evaluations) >= evaluations
    assert agent._n_updates >= updates  # one an epoch of MTPPO
    assert max(len(window) for window in agent.task_success_buffers.values()) <= 20
    return before, after


@pytest.mark.parametrize("make", STEPS_OF_AN_UPDATE)
def test_updates_logs_and_evaluations_leave_nothing_behind(make: Any, tmp_path: Path) -> None:
    before, after = grow(make, updates=80, evaluations=2, warm_up=40, folder=tmp_path)
    assert after.tensors <= before.tensors
    # A few of each evaluation's report are kept. Of each update it would be 80 and more, of each rollout of PPO 20.
    assert after.objects - before.objects < 15


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", STEPS_OF_AN_UPDATE)
def test_twenty_thousand_updates_and_fifty_evaluations_take_less_than_twenty_megabytes(
    make: Any, tmp_path: Path
) -> None:
    before, after = grow(make, updates=20_000, evaluations=50, warm_up=1_000, folder=tmp_path)
    print(f"resident memory grew by {(after.resident - before.resident) / MEGABYTE:.1f} MB")
    assert after.resident - before.resident < 20 * MEGABYTE
    assert after.tensors - before.tensors < 4096
    assert after.objects - before.objects < 2000
