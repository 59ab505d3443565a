"""Configuration of a run: typed, frozen, the same on the command line and in YAML.

Each agent has its own options, so that a run cannot set one that its agent lacks: ``agent.name`` (``--agent``) decides
which `TrainConfig` it is.

A run's ``config.yaml`` holds every value, so ``mtrl-imgrad train --config RUN/config.yaml`` repeats it. Presets are
such files, shipped in ``mtrl_imgrad/presets/rl``, with the source of each value beside it.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mtrl_imgrad.agents.registry import agent_class
from mtrl_imgrad.experiments.config_files import STRICT, read_sections, validated
from mtrl_imgrad.experiments.options import Flat
from mtrl_imgrad.experiments.rl.agent_config import AgentConfig, PolicyConfig, agent_config, policy_config
from mtrl_imgrad.experiments.rl.backend_option import BackendName
from mtrl_imgrad.experiments.rl.tracking import TrackerName
from mtrl_imgrad.validation import Count, NonNegative, NonNegativeInt, Seed, checked

__all__ = [
    "CheckpointConfig",
    "EnvConfig",
    "EvaluationConfig",
    "TrainConfig",
    "load_config",
    "train_config_class",
]


@dataclass(frozen=True)
class EnvConfig:
    """Arguments of `mtrl_imgrad.envs.make_vec_env`, see there for their meaning."""

    __pydantic_config__: ClassVar = STRICT

    env: tuple[str, ...] = ("MT10",)
    """A task set (MT10, MT25, MT50, toy-reach), task names, or package.module:attribute for tasks of your own."""
    backend: BackendName = "auto"
    """Simulator back-end."""
    num_envs_per_task: int = 1
    """Copies of each task's environment."""
    vector_strategy: Literal["sync", "async"] = "sync"
    """Step in this process, or in worker processes (metaworld back-end)."""
    horizon: int | None = None
    """Steps of an episode; None takes the task set's own (Meta-World: 500)."""
    reward_version: Literal["v1", "v2"] = "v2"
    """Meta-World's reward functions."""
    num_goals: int | Literal["auto"] | None = "auto"
    """Goals a task; None draws a fresh one at each reset; auto: 50 on metaworld, None on envpool."""
    one_hot: bool = True
    """Append the task to the observation."""
    terminate_on_success: bool = False
    """End an episode at its first success."""
    num_threads: int | None = None
    """Threads of the envpool back-end."""
    worker_restarts: int = 0
    """How often worker processes are started anew after one failed, with the episodes as they were."""


@checked
@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints while learning, from which ``train --resume`` goes on."""

    __pydantic_config__: ClassVar = STRICT

    checkpoint_every: NonNegativeInt = 1_000_000
    """Environment steps between checkpoints; 0 keeps none."""
    checkpoints_kept: Count = 2
    """How many of the latest to keep."""
    checkpoint_replay: bool = True
    """Whether they hold the replay, their largest part."""


@checked
@dataclass(frozen=True)
class EvaluationConfig:
    """How the run is evaluated, on environments of its own."""

    __pydantic_config__: ClassVar = STRICT

    eval_freq: NonNegativeInt = 100_000
    """Environment steps between evaluations; 0 evaluates before and after training only."""
    eval_episodes: Count = 10
    """Episodes a task of the evaluations before and while training."""
    final_episodes: Count = 50
    """Episodes a task of the evaluation after training."""
    eval_backend: BackendName = "metaworld"
    """Simulator back-end of evaluations (Meta-World's reference by default); auto where it does not have the tasks."""
    eval_envs_per_task: Count = 1
    """Copies of each task's environment in evaluations."""
    eval_goals: Literal["unseen", "training"] = "unseen"
    """Evaluate on other goals than those of training, or on the same ones (metaworld back-end)."""


@checked
@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run; `train_config_class` says for which agent."""

    __pydantic_config__: ClassVar = STRICT

    env: Annotated[EnvConfig, Flat] = field(default_factory=EnvConfig)
    agent: Annotated[AgentConfig, Flat] = field(default_factory=AgentConfig)
    policy: Annotated[PolicyConfig, Flat] = field(default_factory=PolicyConfig)
    evaluation: Annotated[EvaluationConfig, Flat] = field(default_factory=EvaluationConfig)
    checkpoint: Annotated[CheckpointConfig, Flat] = field(default_factory=CheckpointConfig)
    total_timesteps: NonNegativeInt = 20_000_000
    """Environment steps over all tasks."""
    seed: Seed = 0
    """Determines the run on one machine."""
    max_minutes: NonNegative | None = None
    """Stop learning early after this long; the run says so."""
    torch_threads: Count | None = None
    """Threads of PyTorch on the CPU; None leaves its own choice."""
    track: TrackerName | None = None
    """Also log to an experiment tracker, whose package must be installed."""
    run_dir: Path | None = None
    """Run folder; None makes runs/<env>-<combiner>-seed<seed>-<time>."""


@checked
def train_config_class(agent: str) -> type[TrainConfig]:
    """The configuration of an agent's runs: `TrainConfig` with the agent's own options.

    Raises:
        UnknownNameError: if there is no agent of that name.
    """
    return _train_config_class(agent)


@functools.cache  # one class an agent, so that configurations can be compared
def _train_config_class(agent: str) -> type[TrainConfig]:
    sections: list[tuple[str, Any, Any]] = [
        (section, Annotated[kind, Flat], field(default_factory=kind))
        for section, kind in (("agent", agent_config(agent)), ("policy", policy_config(agent)))
    ]
    name = f"{agent_class(agent).__name__}TrainConfig"
    namespace = {"__doc__": f"A run of `{agent_class(agent).__name__}`.", "__module__": __name__}
    return checked(dataclasses.make_dataclass(name, sections, bases=(TrainConfig,), namespace=namespace, frozen=True))


@checked
def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration: a preset's or a run's.

    Raises:
        ArgumentError: if the file cannot be read, or holds a key or a value that does not exist, naming it.
    """
    return read_config(path, read_sections(path))


def read_config(path: str | Path, data: dict[str, Any]) -> TrainConfig:
    """As `load_config`, from the contents of a file; ``path`` is for messages."""
    agent = data.get("agent")
    name = agent.get("name", "mtsac") if isinstance(agent, dict) else "mtsac"
    return validated(path, data, train_config_class(name))
