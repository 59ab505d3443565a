"""The kinds of runs that a comparison may have: agents, and networks on images."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrl_imgrad.combiners.method_strings import parse_method
from mtrl_imgrad.experiments.config_files import validated
from mtrl_imgrad.experiments.rl.clock import read_clock
from mtrl_imgrad.experiments.rl.config import TrainConfig, read_config
from mtrl_imgrad.experiments.rl.methods import identity, with_method
from mtrl_imgrad.experiments.run_folder import CONFIG
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig
from mtrl_imgrad.validation import look_up

SINGLE_TASK = "stl"
"""The supervised method that trains one network a task; the baseline of Δm."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is, read from its folder.

    Attributes:
        done: environment steps or epochs.
        total: of them at the end.
        seconds: of learning so far.
        success: of the latest training episodes, where there is such a thing.
    """

    done: int = 0
    total: int = 1
    seconds: float = 0.0
    success: float | None = None


class RunKind(ABC):
    """A kind of runs, as a comparison needs it."""

    name: str
    command: str
    """That makes and continues such a comparison."""

    @abstractmethod
    def read(self, data: dict[str, Any], path: Path) -> Any:
        """A configuration from its contents."""

    @abstractmethod
    def configs(self, config: Any, method: str, seed: int) -> dict[str, Any]:
        """The runs that a method needs for a seed, by name: one called ``""``, or several parts.

        Raises:
            ArgumentError: if the method cannot be read, or does not take its arguments.
        """

    @abstractmethod
    def identity(self, method: str) -> object:
        """What a method is, however it is written: equal for two texts of the same runs.

        Raises:
            ArgumentError: if the method cannot be read, or does not take its arguments.
        """

    @abstractmethod
    def run(self, config: Any, console: Console) -> None:
        """Train the run of ``config.run_dir``, or go on with it."""

    @abstractmethod
    def progress(self, config: Any, folder: Path) -> Progress:
        """How far it is."""


class AgentRuns(RunKind):
    """`mtrl_imgrad.experiments.rl`."""

    name, command = "rl", "compare"

    def read(self, data: dict[str, Any], path: Path) -> TrainConfig:
        """See `RunKind`."""
        return read_config(path, data)

    def configs(self, config: TrainConfig, method: str, seed: int) -> dict[str, TrainConfig]:
        """See `RunKind`."""
        return {"": dataclasses.replace(with_method(config, method), seed=seed)}

    def identity(self, method: str) -> object:
        """See `RunKind`."""
        return identity(method)

    def run(self, config: TrainConfig, console: Console) -> None:
        """See `RunKind`."""
        from mtrl_imgrad.experiments.rl.train import resume, train

        assert config.run_dir is not None
        if (config.run_dir / CONFIG).exists():
            resume(config.run_dir, console, progress_bar=False)
        else:
            train(config, console, progress_bar=False)

    def progress(self, config: TrainConfig, folder: Path) -> Progress:
        """See `RunKind`."""
        rows = read_clock(folder)
        if not rows:
            return Progress(total=config.total_timesteps)
        last = rows[-1]
        success = None if last.train_success != last.train_success else last.train_success
        return Progress(last.timesteps, config.total_timesteps, last.wall_seconds, success)


class SupervisedRuns(RunKind):
    """`mtrl_imgrad.experiments.supervised`."""

    name, command = "supervised", "supervised compare"

    def read(self, data: dict[str, Any], path: Path) -> SupervisedConfig:
        """See `RunKind`."""
        return validated(path, data, SupervisedConfig)

    def configs(self, config: SupervisedConfig, method: str, seed: int) -> dict[str, SupervisedConfig]:
        """See `RunKind`. ``stl`` has a part for each task."""
        config = dataclasses.replace(config, seed=seed)
        if method == SINGLE_TASK:
            return {name: _single_task(config, name) for name in _task_names(config)}
        parsed = parse_method(method)
        own = dataclasses.replace(config.method, combiner=parsed.name, combiner_kwargs=dict(parsed.arguments))
        return {"": dataclasses.replace(config, method=own)}

    def identity(self, method: str) -> object:
        """See `RunKind`."""
        return method if method == SINGLE_TASK else parse_method(method).identity()

    def run(self, config: SupervisedConfig, console: Console) -> None:
        """See `RunKind`."""
        from mtrl_imgrad.experiments.supervised.run import train_or_resume

        train_or_resume(config, console=console, progress_bar=console.is_terminal)

    def progress(self, config: SupervisedConfig, folder: Path) -> Progress:
        """See `RunKind`."""
        from mtrl_imgrad.experiments.supervised.history import read_rows

        rows = read_rows(folder / "epochs.csv") if (folder / "epochs.csv").exists() else []
        return Progress(len(rows), config.optimization.epochs, sum(row["seconds"] for row in rows))


_TASKS: dict[str, list[str]] = {}
"""Names of the tasks by data set: each is opened once."""


def _task_names(config: SupervisedConfig) -> list[str]:
    if config.data.tasks:
        return list(config.data.tasks)
    from mtrl_imgrad.experiments.supervised.data import load_splits

    key = repr((config.data, config.protocol))
    if key not in _TASKS:
        data = load_splits(config.data, protocol=config.protocol, progress_bar=False)
        _TASKS[key] = [task.name for task in data.tasks]
    return _TASKS[key]


def _single_task(config: SupervisedConfig, task: str) -> SupervisedConfig:
    method = dataclasses.replace(config.method, combiner="linear_scalarization", combiner_kwargs={})
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tasks=(task,)), method=method)


KINDS: dict[str, RunKind] = {kind.name: kind for kind in (AgentRuns(), SupervisedRuns())}


def kind_of(config: Any) -> RunKind:
    """The kind of a configuration."""
    return KINDS["rl" if isinstance(config, TrainConfig) else "supervised"]


def kind_named(name: str) -> RunKind:
    """A kind by its name."""
    return look_up("kind of runs", name, KINDS)
