"""The commands that make and read comparisons."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.comparisons.compare import make_runs, refuse_failed
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.live import show
from mtrl_imgrad.experiments.comparisons.plan import PLAN, load_comparison
from mtrl_imgrad.experiments.comparisons.records import RunRecord, by_method, load_records
from mtrl_imgrad.experiments.options import Flat, given_options
from mtrl_imgrad.experiments.rl.commands import Start
from mtrl_imgrad.experiments.rl.config import TrainConfig, train_config_class
from mtrl_imgrad.reporting.narrow import table_or_list

ON_SCREEN = 5
"""Columns of the report's table that a terminal shows."""
Format = Literal["png", "pdf", "svg"]


@dataclass(frozen=True)
class _Given:
    preset: str | None = None
    config: Path | None = None
    agent: str = "mtsac"
    out: Path | None = None


@dataclass(frozen=True)
class Compare:
    """Options of ``compare``."""

    start: Annotated[Start, Flat] = field(default_factory=Start)
    config: Annotated[TrainConfig, Flat] = field(default_factory=train_config_class("mtsac"))
    methods: tuple[str, ...] = ()
    """Combiners with their arguments, such as imgrad:c=0.4; ACTOR+CRITIC for one each; none: those of the folder."""
    seeds: tuple[int, ...] = ()
    """Runs of each method; none: those of the folder."""
    out: Path = Path("comparisons/rl")
    """Folder of the comparison."""
    launch: Annotated[Launch, Flat] = field(default_factory=Launch)
    progress_bar: bool = True
    """Show progress."""

    @classmethod
    def defaults(cls, arguments: list[str]) -> Compare:
        """From a preset, a file, the comparison of the folder, or the agent's own defaults."""
        given = given_options(_Given, "compare", arguments)
        start = Start(given.preset, given.config)
        if (chosen := start.load()) is not None:
            return cls(start, chosen)
        if given.out is not None and (given.out.expanduser() / PLAN).exists():
            config = load_comparison(given.out).config
            if not isinstance(config, TrainConfig):
                raise ArgumentError(f"{given.out} holds a comparison of mtrl-imgrad supervised compare")
            return cls(start, config)
        return cls(start, train_config_class(given.agent)())

    def __call__(self) -> None:
        """Make the runs that are missing."""
        config = dataclasses.replace(self.config, run_dir=None)
        comparison = make_runs(config, self.methods, self.seeds, self.out, self.launch, progress_bar=self.progress_bar)
        if self.launch.launcher != "slurm":
            refuse_failed(comparison)


@dataclass(frozen=True)
class Status:
    """Options of ``status``."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A comparison's."""
    watch: bool = False
    """Stay until nothing runs."""

    def __call__(self) -> None:
        """Print the table."""
        show(load_comparison(self.folder), Console(highlight=False), self.watch)


@dataclass(frozen=True)
class FinishedRuns:
    """Which runs to draw or report."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Comparisons, or folders with runs below them."""
    methods: tuple[str, ...] = ()
    """Only these; none: all."""

    def records(self) -> list[RunRecord]:
        """The finished runs.

        Raises:
            ArgumentError: if there is none.
            UnknownNameError: if there is none of a method.
        """
        records = load_records(self.folders)
        known = list(by_method(records))
        for method in self.methods:
            if method not in known:
                raise UnknownNameError("method with finished runs", method, known)
        return [record for record in records if not self.methods or record.method in self.methods]


@dataclass(frozen=True)
class Plot(FinishedRuns):
    """Options of ``plot``."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("figures")
    """Folder for the figures."""
    format: Format = "png"
    """Of the files."""

    def __call__(self) -> None:
        """Draw, and print what each figure shows."""
        from mtrl_imgrad.experiments.comparisons.figures import draw_figures, refuse_too_many

        records = self.records()
        refuse_too_many(records)
        console = Console(highlight=False)
        for path, what in draw_figures(records, self.out.expanduser(), self.format).items():
            console.print(escape(f"{path}  {what}"), soft_wrap=True)


@dataclass(frozen=True)
class Report(FinishedRuns):
    """Options of ``report``."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report")
    """Folder of the report."""
    title: str = "Comparison"
    """Of the page."""

    def __call__(self) -> None:
        """Write the report; print its table and statements."""
        from mtrl_imgrad.experiments.comparisons.report import write_report
        from mtrl_imgrad.experiments.comparisons.summary import summarize

        records = self.records()
        page = write_report(records, self.out.expanduser(), self.title)
        summary, console = summarize(records), Console(highlight=False)
        rows = [list(map(escape, row[:ON_SCREEN])) for row in summary.rows()]
        console.print(table_or_list(console, summary.header()[:ON_SCREEN], rows))
        for sentence in summary.statements:
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))
        console.print(escape(f"the report is {page}"), soft_wrap=True)
