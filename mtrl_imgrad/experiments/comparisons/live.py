"""How far a comparison is: a table on a terminal, lines of text elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.state import RunState, read_state
from mtrl_imgrad.reporting.narrow import item, table_or_list
from mtrl_imgrad.reporting.progress import duration

LINE_EVERY = 60.0
"""Seconds between two lines where there is no terminal."""
DRAW_EVERY = 1.0


def seconds_left(states: Sequence[RunState], jobs: int) -> float:
    """Estimated seconds until all runs are finished, from the seconds of learning so far; NaN before there are any.

    Runs that failed do not count.
    """
    spent = sum(state.progress.seconds for state in states)
    learned = sum(state.progress.done / state.progress.total for state in states if state.progress.seconds > 0)
    left = [
        1 - state.progress.done / state.progress.total
        for state in states
        if state.status in ("waiting", "running", "stopped")
    ]
    if not learned:
        return math.nan
    return spent / learned * max(sum(left) / max(1, jobs), max(left, default=0.0))


def overview(
    runs: Sequence[PlannedRun], states: Mapping[str, RunState], jobs: int, console: Console, note: str = ""
) -> Group:
    """A row a method, a column a seed; below it what runs, what failed, and the time left.

    Where the console is too narrow for the table, a list with the same words.
    """
    seeds = list(dict.fromkeys(run.seed for run in runs))
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [[states[run.name] for run in runs if (run.method, run.seed) == (method, seed)] for seed in seeds]
        rows.append([escape(method), *(" ".join(map(_cell, parts)) for parts in own)])
    table = table_or_list(console, ["method", *(f"seed {seed}" for seed in seeds)], rows)
    words: list[Any] = [Text(_summary(list(states.values()), jobs))]
    for status in ("running", "failed"):
        for run in runs:
            if states[run.name].status == status:
                news = _news(states[run.name])[:160]
                as_line = isinstance(table, Table)
                words.append(Text(f"  {run.label}: {news}") if as_line else item(run.label, news))
    return Group(table, *words, *([Text(note)] if note else []))


class ComparisonView:
    """Shows a comparison while it runs.

    Args:
        comparison: what is run.
        runs: of it.
        jobs: at a time.
        console: where to print.
        shown: False prints changes only.
    """

    def __init__(
        self, comparison: Comparison, runs: Sequence[PlannedRun], jobs: int, console: Console, shown: bool
    ) -> None:
        self.comparison, self.runs, self.jobs, self.console, self.shown = comparison, runs, jobs, console, shown
        self.note = ""
        self._live = Live(console=console, auto_refresh=False) if shown and console.is_terminal else None
        self._drawn, self._told = -math.inf, time.monotonic()
        self._said = {name: state.status for name, state in self.states().items()}

    def __enter__(self) -> ComparisonView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draw(now=True)
        if self._live is not None:
            self._live.stop()
        elif self.shown:
            self._say_all(self.states())

    def draw(self, now: bool = False) -> None:
        """Show the state of all runs, if it is time to."""
        since = time.monotonic() - self._drawn
        if since < DRAW_EVERY and not now:
            return
        states = self.states()
        if self._live is not None:
            self._live.update(overview(self.runs, states, self.jobs, self.console, self.note), refresh=True)
            self._drawn = time.monotonic()
            return
        for run in self.runs:
            state = states[run.name]
            if self._said[run.name] != state.status:
                self.console.print(escape(f"{run.label}: {_news(state)}"), soft_wrap=True)
                self._said[run.name] = state.status
        self._drawn = time.monotonic()
        if self.shown and time.monotonic() - self._told > LINE_EVERY:
            self._say_all(states)

    def states(self) -> dict[str, RunState]:
        """Of all runs, now."""
        return {run.name: read_state(self.comparison.kind, run) for run in self.runs}

    def _say_all(self, states: Mapping[str, RunState]) -> None:
        """A line for all, and one for each run that is running."""
        self._told = time.monotonic()
        self.console.print(escape(_summary(list(states.values()), self.jobs)), soft_wrap=True)
        for run in self.runs:
            if states[run.name].status == "running":
                self.console.print(escape(f"  {run.label}: {_news(states[run.name])}"), soft_wrap=True)


def show(comparison: Comparison, console: Console, watch: bool) -> None:
    """Print how far a comparison is that other processes run; ``watch`` goes on until nothing runs."""
    runs = comparison.runs()
    states = {run.name: read_state(comparison.kind, run) for run in runs}
    jobs = sum(state.status == "running" for state in states.values())
    if not watch:
        console.print(overview(runs, states, jobs, console))
        return
    with ComparisonView(comparison, runs, jobs, console, shown=True) as view:
        while any(state.status == "running" for state in view.states().values()):
            view.draw()
            time.sleep(DRAW_EVERY)


def _cell(state: RunState) -> str:
    success = "" if state.success is None else f" {state.success:.2f}"
    if state.status == "finished":
        return f"[green]done[/]{success}"
    if state.status == "failed":
        return "[red]failed[/]"
    if state.status == "waiting":
        return "[dim]-[/]"
    share = f"{state.progress.done / state.progress.total:.0%}"
    return f"{share}{success}" if state.status == "running" else f"[yellow]stopped {share}[/]"


def _summary(states: Sequence[RunState], jobs: int) -> str:
    counts = {status: sum(state.status == status for state in states) for status in ("running", "failed", "stopped")}
    done = sum(state.status == "finished" for state in states)
    parts = [f"{done} of {len(states)} runs finished", *(f"{n} {status}" for status, n in counts.items() if n)]
    left = seconds_left(states, jobs)
    if counts["running"] and math.isfinite(left):
        parts.append(f"about {duration(left)} left")
    return ", ".join(parts)


def _news(state: RunState) -> str:
    if state.status == "failed":
        return f"failed: {state.error.splitlines()[0] if state.error else 'no message'}"
    progress = state.progress
    words: list[str] = [state.status]
    if state.status in ("running", "stopped"):
        words.append("evaluating" if progress.done >= progress.total else f"{progress.done / progress.total:.0%}")
    if state.success is not None:
        words.append(f"success {state.success:.2f}")
    if state.status == "running" and 0 < progress.done < progress.total:
        left = progress.seconds / progress.done * (progress.total - progress.done)
        words.append(f"{duration(left)} left")
    return ", ".join(words)
