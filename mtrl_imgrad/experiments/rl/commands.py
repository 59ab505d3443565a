"""The commands ``mtrl-imgrad train``, ``evaluate`` and ``video``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mtrl_imgrad.experiments.options import Flat, given_options, without_stale_kwargs
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.rl.backend_option import BackendName
from mtrl_imgrad.experiments.rl.config import TrainConfig, load_config, train_config_class

if TYPE_CHECKING:
    Preset = str
else:
    Preset = tyro.extras.literal_type_from_choices(list_presets("rl"))

_ONE = tyro.conf.create_mutex_group(required=False)


@dataclass(frozen=True)
class Start:
    """Where settings come from."""

    preset: Annotated[Preset | None, _ONE] = None
    """Settings shipped with the library; see `mtrl-imgrad presets`."""
    config: Annotated[Path | None, _ONE] = None
    """Settings of a file, such as a run's config.yaml."""

    def load(self) -> TrainConfig | None:
        """The settings, if they come from anywhere."""
        path = self.config if self.preset is None else preset_path("rl", self.preset)
        return None if path is None else load_config(path)


@dataclass(frozen=True)
class TrainStart(Start):
    """Where a run starts from."""

    resume: Annotated[Path | None, _ONE] = None
    """Go on with the run of a folder, as it began: no other options than --no-progress-bar."""


@dataclass(frozen=True)
class _Given:
    preset: str | None = None
    config: Path | None = None
    resume: Path | None = None
    agent: str = "mtsac"


@dataclass(frozen=True)
class Train:
    """Options of ``train``."""

    start: Annotated[TrainStart, Flat] = field(default_factory=TrainStart)
    config: Annotated[TrainConfig, Flat] = field(default_factory=train_config_class("mtsac"))
    progress_bar: bool = True
    """Show progress."""

    @classmethod
    def defaults(cls, arguments: list[str]) -> Train | Resume:
        """From a preset, a file, or the agent's own defaults."""
        given = given_options(_Given, "train", arguments)
        if given.resume is not None:
            return Resume(given.resume)
        start = TrainStart(given.preset, given.config)
        return cls(start, start.load() or train_config_class(given.agent)())

    def __call__(self) -> None:
        """Train."""
        from mtrl_imgrad.experiments.rl.train import train

        config, default = self.config, self.start.load()
        if default is not None:
            config = dataclasses.replace(config, agent=without_stale_kwargs(config.agent, default.agent))
        train(config, progress_bar=self.progress_bar)


@dataclass(frozen=True)
class Resume:
    """Options of ``train --resume``."""

    resume: Path
    """Go on with the run of this folder, as it began."""
    progress_bar: bool = True
    """Show progress."""

    def __call__(self) -> None:
        """Go on."""
        from mtrl_imgrad.experiments.rl.train import resume

        resume(self.resume, progress_bar=self.progress_bar)


@dataclass(frozen=True)
class Evaluate:
    """Options of ``evaluate``."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 50
    """Episodes of each task."""
    model: Literal["model", "best_model"] = "model"
    """The model at the end, or the best by success while training."""
    seed: int | None = None
    """Seed of the evaluation's goals; None takes new ones for best_model, the run's own for model."""
    backend: BackendName | None = None
    """Simulator back-end; None takes that of the run's own evaluations."""
    stochastic: bool = False
    """Sample actions in place of taking the mean."""
    progress_bar: bool = True
    """Show progress."""

    def __call__(self) -> None:
        """Evaluate, print and save."""
        from mtrl_imgrad.experiments.rl.evaluate import evaluate_run

        evaluate_run(
            self.run,
            self.episodes,
            self.model,
            self.seed,
            self.backend,
            deterministic=not self.stochastic,
            progress_bar=self.progress_bar,
        )


@dataclass(frozen=True)
class Video:
    """Options of ``video``."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    out: Path
    """The film, .mp4 or .gif."""
    task: str = "all"
    """A task of the run, or "all": side by side."""
    camera: str | None = None
    """Of Meta-World: corner2 (default), corner, corner3, corner4, topview, behindGripper or gripperPOV."""
    model: Literal["model", "best_model"] = "model"
    """The model at the end, or the best by success while training."""
    seed: int | None = None
    """Seed of the goals; None takes that of the run's evaluations."""
    size: int = 240
    """Pixels of a task's picture."""
    every: int = 4
    """Environment steps between two frames."""
    fps: float = 20.0
    """Frames a second."""
    until_success: bool = False
    """End a task's film soon after its success."""

    def __call__(self) -> None:
        """Film."""
        from mtrl_imgrad.experiments.rl.video import film_run

        options = {name: value for name, value in vars(self).items() if name not in ("run", "out", "task")}
        film_run(self.run, self.out, self.task, **options)
