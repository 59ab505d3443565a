"""The command ``mtrl-imgrad supervised`` and those below it."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import ArgumentError, LearningInterruptedError
from mtrl_imgrad.experiments.options import Flat, given_options, without_stale_kwargs
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.signals import signals_handled
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig, load_config
from mtrl_imgrad.experiments.supervised.history import RunResult
from mtrl_imgrad.experiments.torchrun import is_first, torchrun_group
from mtrl_imgrad.scenes import SCENE_KINDS, make_scenes

if TYPE_CHECKING:
    Preset = str
    SceneKind = str
else:
    Preset = tyro.extras.literal_type_from_choices(list_presets("supervised"))
    SceneKind = tyro.extras.literal_type_from_choices(list(SCENE_KINDS))

_ONE = tyro.conf.create_mutex_group(required=False)


@dataclass(frozen=True)
class Start:
    """Where settings come from."""

    data: Annotated[Preset | None, _ONE] = None
    """A data set, with its paper's settings; see `mtrl-imgrad presets`."""
    config: Annotated[Path | None, _ONE] = None
    """Settings of a file, such as a run's config.yaml."""

    def load(self) -> SupervisedConfig | None:
        """The settings, if they come from anywhere."""
        path = self.config if self.data is None else preset_path("supervised", self.data)
        return None if path is None else load_config(path)


@dataclass(frozen=True)
class _Given:
    data: str | None = None
    config: Path | None = None
    resume: Path | None = None


@dataclass(frozen=True)
class Configured:
    """Options of a command that takes a configuration."""

    start: Annotated[Start, Flat] = field(default_factory=Start)
    config: Annotated[SupervisedConfig, Flat] = field(default_factory=SupervisedConfig)
    progress_bar: bool = True
    """Show progress."""

    @classmethod
    def defaults(cls, arguments: list[str]) -> Self | Resume:
        """From a preset or a file."""
        given = given_options(_Given, "supervised", arguments)
        start = Start(given.data, given.config)
        return cls(start, start.load() or SupervisedConfig())

    def chosen(self) -> SupervisedConfig:
        """The configuration.

        Raises:
            ArgumentError: if neither ``--data`` nor ``--config`` was given.
        """
        default = self.start.load()
        if default is None:
            raise ArgumentError(f"--data NAME ({', '.join(list_presets('supervised'))}) or --config FILE is needed")
        return dataclasses.replace(self.config, method=without_stale_kwargs(self.config.method, default.method))

    def folder(self, kind: str, out: Path | None) -> Path:
        """``out``, or a folder by the name of the data."""
        return out or Path(kind) / self.config.data.name


@dataclass(frozen=True)
class Train(Configured):
    """Options of ``supervised``."""

    resume: Annotated[Path | None, _ONE] = None
    """Go on with the run of a folder, as it began: no other options than --no-progress-bar."""

    @classmethod
    def defaults(cls, arguments: list[str]) -> Self | Resume:
        """From a preset or a file, unless a run goes on."""
        given = given_options(_Given, "supervised", arguments)
        return super().defaults(arguments) if given.resume is None else Resume(given.resume)

    def __call__(self) -> None:
        """Train one network and print its result."""
        from mtrl_imgrad.experiments.supervised.run import train

        config = self.chosen()
        with torchrun_group() as group:
            result = train(config, group=group, progress_bar=self.progress_bar)
        _print_result(result)


@dataclass(frozen=True)
class Resume:
    """Options of ``supervised --resume``."""

    resume: Path
    """Go on with the run of this folder, as it began."""
    progress_bar: bool = True
    """Show progress."""

    def __call__(self) -> None:
        """Go on and print the result."""
        from mtrl_imgrad.experiments.supervised.run import resume

        with torchrun_group() as group:
            result = resume(self.resume, group=group, progress_bar=self.progress_bar)
        _print_result(result)


def _print_result(result: RunResult) -> None:
    if not is_first():
        return
    console = Console(file=sys.stdout, highlight=False)
    console.print(escape(f"result: {result.how}"), style="bold")
    for task, metrics in list(result.results.items())[:8]:
        console.print(f"  {task}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items()))


@dataclass(frozen=True)
class CoTBal(Configured):
    """Options of ``supervised cotbal``."""

    mini: float = 1 / 32
    """Share of the training images in "mini"."""
    temperature: float = 1.0
    """Of the weights' softmaxes."""
    out: Path | None = None
    """Folder; None makes cotbal/<data>."""

    def __call__(self) -> None:
        """Make the runs that are missing, then the tables."""
        from mtrl_imgrad.experiments.supervised.cotbal import measure_cotbal

        folder, progress_bar = self.folder("cotbal", self.out), self.progress_bar
        with _signals_say_how_to_go_on(folder):
            measure_cotbal(
                self.chosen(), folder, mini=self.mini, temperature=self.temperature, progress_bar=progress_bar
            )


@contextmanager
def _signals_say_how_to_go_on(folder: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block with that message; runs keep their checkpoints, as after any kill."""

    def stop(number: int, frame: object) -> None:
        raise LearningInterruptedError(
            f"interrupted by {signal.Signals(number).name}: what is done is kept in {folder}; to go on, give the same "
            "command again",
            number,
        )

    with signals_handled(stop):
        yield


@dataclass(frozen=True)
class Analyse:
    """Options of ``supervised analyse``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or folders of comparisons."""
    out: Path = Path("analysis")
    """Folder for the pictures."""

    def __call__(self) -> None:
        """Draw."""
        from mtrl_imgrad.experiments.supervised.analysis import analyse

        analyse(self.runs, self.out)


@dataclass(frozen=True)
class MakeData:
    """Options of ``supervised make-data``."""

    kind: Annotated[SceneKind, tyro.conf.Positional]
    """What the scenes show: see docs/datasets.md."""
    root: Path | None = None
    """Folder to make; None makes data/<kind>."""
    train: int | None = None
    """Scenes for training."""
    val: int | None = None
    """Scenes for validation."""
    test: int | None = None
    """Scenes for test."""
    size: tuple[int, int] | None = None
    """Height and width."""
    seed: int = 0
    """Of the scenes."""
    colour: Literal["auto", "gl", "rays"] = "auto"
    """OpenGL, or shaded rays; auto takes the first that works."""

    def __call__(self) -> None:
        """Make the folder."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        counts = {split: count for split, count in given.items() if count is not None}
        height, width = self.size or (None, None)
        root = make_scenes(
            self.kind,
            self.root or Path("data") / self.kind,
            counts=counts or None,
            height=height,
            width=width,
            seed=self.seed,
            colour=self.colour,
        )
        console = Console(file=sys.stdout, highlight=False)
        console.print(f"{self.kind} scenes are in {escape(str(root))}", soft_wrap=True)
