"""Short runs in two ways: in one go, and with a break after which another process goes on.

As a program it goes on with the runs of a JSON file, so that one process is enough for many.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import CSVOutputFormat, Logger

from mtrl_imgrad.agents import GradientDiagnosticsCallback, MTCheckpointCallback
from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.checkpoints.format import read_checkpoint
from mtrl_imgrad.envs import make_vec_env
from tests.support.paths import ROOT

HORIZON = 5
STEPS = 8
"""Of every environment before the break, and as many after it: within an episode, between two rollouts of MTPPO."""
OPTIONS = {
    "mtsac": {"learning_starts": 12, "batch_size": 16, "buffer_size": 48},
    "mttd3": {"learning_starts": 12, "batch_size": 16, "buffer_size": 48, "policy_delay": 3},
    "mtppo": {"n_steps": 4, "batch_size": 8, "n_epochs": 1, "value_normalization": "popart"},
}
COMMON = {"seed": 3, "device": "cpu"}


@dataclass(frozen=True)
class Run:
    """What a run is made of; plain values, so that JSON holds it."""

    folder: str
    agent: str
    arguments: dict[str, Any]
    tasks: Any = "toy-reach"
    env: dict[str, Any] | None = None

    def make_env(self):
        return make_vec_env(self.tasks, **{"seed": 0, "horizon": HORIZON, **(self.env or {})})

    def learn(self, agent, name, steps):
        """Learn with all callbacks and a table of logs, saving at the break and at the end."""
        folder = Path(self.folder)
        folder.mkdir(exist_ok=True)
        agent.set_logger(Logger(str(folder), [CSVOutputFormat(str(folder / f"{name}.csv"))]))
        callbacks = [GradientDiagnosticsCallback(log_freq=4), MTCheckpointCallback(STEPS, folder / name)]
        agent.learn(steps * agent.n_envs, callbacks, log_interval=3, reset_num_timesteps=agent.num_timesteps == 0)
        agent.logger.close()

    def in_one_go(self):
        env = self.make_env()
        policy = {"net_arch": [8]}
        if "adatask" in self.arguments["combiner"].values():  # makes Adam's step itself
            policy["optimizer_class"] = torch.optim.SGD
        options = {**COMMON, **OPTIONS[self.agent], "policy_kwargs": policy, **self.arguments}
        self.learn(AGENTS[self.agent]("MlpPolicy", env, **options), "whole", 2 * STEPS)
        env.close()

    def after_the_break(self):
        env = self.make_env()
        agent = AGENTS[self.agent].load_checkpoint(self.checkpoint("whole", STEPS, env.num_envs), env, device="cpu")
        self.learn(agent, "resumed", STEPS)
        env.close()

    def checkpoint(self, name, steps, num_envs):
        return Path(self.folder) / name / f"step_{steps * num_envs:012d}"


def run_in_both_ways(runs, folder):
    """Every run in one go here, and from its break on in another process."""
    for run in runs:
        run.in_one_go()
    (folder / "runs.json").write_text(json.dumps([asdict(run) for run in runs]))
    command = [sys.executable, "-W", "error", "-m", "tests.support.agents.resumed_runs", str(folder / "runs.json")]
    command.append(str(torch.get_num_threads()))
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def assert_the_same(run):
    """Whether the two ways left the same checkpoint and the same records."""
    num_envs = read_checkpoint(next((Path(run.folder) / "whole").iterdir()))["tasks"]
    num_envs = num_envs["copies"] * len(num_envs["names"])
    assert_equal_states(*(run.checkpoint(name, 2 * STEPS, num_envs) for name in ("whole", "resumed")))
    whole, resumed = (records(Path(run.folder) / f"{name}.csv") for name in ("whole", "resumed"))
    expected = [row for row in whole if int(row["time/total_timesteps"]) > STEPS * num_envs]
    assert expected, "nothing was logged after the break: the comparison would be empty"
    assert resumed == expected


def records(table):
    """The rows of a table of logs, without times."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    times = ("time/fps", "time/time_elapsed")
    return [{key: text for key, text in row.items() if text and key not in times} for row in rows]


def assert_equal_states(ours, theirs):
    """All that a checkpoint holds is equal bit for bit.

    But for the seconds that episodes took, and where the counting of speed began.
    """
    a, b = _flat(read_checkpoint(ours)), _flat(read_checkpoint(theirs))
    assert a.keys() == b.keys()
    for place, value in a.items():
        if place.startswith("/progress/episodes/") and place.endswith("/t"):
            continue
        if place == "/progress/counters/_num_timesteps_at_start":
            continue
        assert type(value) is type(b[place]), place
        assert _bits(value) == _bits(b[place]), place


def _flat(value, place="", found=None):
    """Every leaf of a state by its place."""
    found = {} if found is None else found
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    )
    if entries is None:
        found[place] = value
    else:
        for key, entry in entries:
            _flat(entry, f"{place}/{key}", found)
    return found


def _bits(value):
    """Equal for equal values only, NaN among them."""
    is_array = isinstance(value, (torch.Tensor, np.ndarray))
    return (str(value.dtype), value.shape, np.asarray(value).tobytes()) if is_array else repr(value)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    for plain in json.loads(Path(sys.argv[1]).read_text()):
        Run(**plain).after_the_break()
