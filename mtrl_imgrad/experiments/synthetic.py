"""The synthetic problem from options to a folder of results."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.run_folder import new_run_dir
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import make_folder
from mtrl_imgrad.reporting.progress import counting_bar
from mtrl_imgrad.synthetic import (
    DEFAULT_METHODS,
    Outcome,
    TextTable,
    Trajectories,
    check_shares,
    descend,
    failure_table,
    outcomes,
    parse_method,
    reached_table,
    save_outcomes,
    save_tables,
    scenario_table,
)
from mtrl_imgrad.synthetic.plots import plot_failures, plot_progress, plot_trajectories
from mtrl_imgrad.synthetic.problem import STARTS, Start
from mtrl_imgrad.validation import checked


@dataclass(frozen=True)
class ToyConfig:
    """Options of ``mtrl-imgrad toy``."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    """Combiners, each NAME or NAME:KEY=VALUE,KEY=VALUE, for instance cagrad:c=0.8."""
    s: tuple[float, ...] = (0.9,)
    """Scenarios: the share of the first task, whose losses are s f1 and (1 - s) f2."""
    starts: tuple[str, ...] = ("five",)
    """five (Nash-MTL's), three (CAGrad's), or points as "(-8.5,7.5)" "(0,0)"."""
    steps: int = 35_000
    """Steps of each trajectory."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    c: float | None = None
    """For the methods that take c and do not say which; None leaves their own default."""
    seed: int = 0
    """For the methods that draw random numbers."""
    run_dir: Path | None = None
    """Run folder; None makes runs/toy-<time>."""
    progress_bar: bool = True
    """Show progress."""

    def __call__(self) -> None:
        """As a command."""
        run_toy(self)


@checked
def run_toy(config: ToyConfig, console: Console | None = None) -> list[Outcome]:
    """Follow all methods from all starts in all scenarios, print the tables and keep everything in a folder.

    The folder holds ``results.json``, ``results.csv``, ``tables.md`` and for each scenario ``trajectories_s<s>.png``,
    ``failures_s<s>.png`` and ``progress_s<s>.png``.

    Raises:
        ArgumentError: if an option is not as described, or the folder holds results already.
        NonFiniteError: if a method leaves the numbers.
    """
    console = console or Console(highlight=False)
    defaults = {} if config.c is None else {"c": config.c}
    methods = [parse_method(text, **defaults) for text in config.methods]
    starts, shares = _parse_starts(config.starts), check_shares(config.s)
    folder = new_run_dir(config.run_dir, "toy", "results.json")
    began = time.monotonic()
    with counting_bar("steps", config.steps, config.progress_bar) as advance:
        run = descend(
            methods,
            shares=shares,
            starts=starts,
            steps=config.steps,
            lr=config.lr,
            seed=config.seed,
            on_steps=advance,
        )
    results = outcomes(run)
    console.print(f"{len(results)} trajectories in {time.monotonic() - began:.0f} s\n")
    tables = _tables(results, run)
    for table in tables:
        console.print(table.title, style="bold")
        console.print(table.rich())
        console.print()
    settings = {key: value for key, value in asdict(config).items() if key not in ("run_dir", "progress_bar")}
    make_folder("run_dir", folder)
    save_outcomes(results, settings | {"versions": installed_versions()}, folder)
    save_tables(tables, folder)
    for scenario, s in enumerate(shares):
        plot_trajectories(run, results, scenario, folder / f"trajectories_s{s:g}.png")
        plot_failures(run, scenario, folder / f"failures_s{s:g}.png")
        plot_progress(run, scenario, folder / f"progress_s{s:g}.png")
    console.print(
        f"Everything is in {escape(str(folder))}; look at trajectories_s{shares[0]:g}.png first", style="bold"
    )
    return results


def _tables(results: list[Outcome], run: Trajectories) -> list[TextTable]:
    return [
        reached_table(results, run.steps),
        failure_table(results),
        *(scenario_table(results, s) for s in run.shares),
    ]


def _parse_starts(texts: tuple[str, ...]) -> str | tuple[Start, ...]:
    if len(texts) == 1 and texts[0] in STARTS:
        return texts[0]
    try:
        return tuple(tuple(map(float, text.strip("()").split(","))) for text in texts)  # type: ignore[misc]
    except ValueError as error:
        raise ArgumentError(
            f'starts must be {" or ".join(STARTS)}, or points as "(-8.5,7.5)" "(0,0)", got {texts}'
        ) from error
