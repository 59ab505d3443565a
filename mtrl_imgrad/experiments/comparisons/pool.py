"""Runs several at a time, wherever each is made: what waits, what runs, what a signal stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console

from mtrl_imgrad.errors import LearningInterruptedError
from mtrl_imgrad.experiments.comparisons.live import ComparisonView
from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.processes import INTERRUPTED, POLL_EVERY
from mtrl_imgrad.experiments.comparisons.state import ERROR, LOG, read_state, write_error
from mtrl_imgrad.experiments.signals import signals_handled


class StartedRun(Protocol):
    """A run that is being made somewhere."""

    def poll(self) -> int | str | None:
        """None while it runs; then its exit status, or in words why there is none."""

    def stop(self, at_once: bool) -> None:
        """Let it save a checkpoint and end, or end it at once."""


def run_all(
    comparison: Comparison,
    runs: Sequence[PlannedRun],
    jobs: int,
    console: Console,
    progress_bar: bool,
    start: Callable[[PlannedRun], StartedRun],
) -> None:
    """At most ``jobs`` runs at a time.

    A run's output goes to its ``output.log``. One that fails does not stop the others. Ctrl-C or SIGTERM let every run
    save a checkpoint; a second one ends them at once.

    Raises:
        LearningInterruptedError: if a signal stopped it; says how to go on.
    """
    waiting = list(runs)
    running: dict[str, tuple[PlannedRun, StartedRun]] = {}
    shown = ComparisonView(comparison, comparison.runs(), jobs, console, progress_bar)
    received: list[int] = []
    told = 0
    with signals_handled(lambda number, frame: received.append(number)), shown as view:
        while waiting or running:
            if received:
                waiting.clear()
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                run.folder.mkdir(parents=True, exist_ok=True)
                (run.folder / ERROR).unlink(missing_ok=True)
                running[run.name] = (run, start(run))
            if told < min(len(received), 2):
                told += 1
                view.note = "stopping: every run saves a checkpoint; once more to stop at once"
                for _, started in running.values():
                    started.stop(at_once=told == 2)
            for name, (run, started) in list(running.items()):
                ending = started.poll()
                if ending is not None:
                    del running[name]
                    _note_end(comparison, run, ending, bool(received))
                    view.draw(now=True)
            view.draw()
            time.sleep(POLL_EVERY)
    if received:
        stopped_by = signal.Signals(received[0]).name
        raise LearningInterruptedError(
            f"the comparison was interrupted by {stopped_by}; to go on: {comparison.command()}", received[0]
        )


def _note_end(comparison: Comparison, run: PlannedRun, ending: int | str, stopping: bool) -> None:
    """Keep what a run failed by, if it could not do so itself."""
    killed = isinstance(ending, int) and ending < 0
    if ending in (0, INTERRUPTED) or (stopping and (killed or isinstance(ending, str))):
        return
    if read_state(comparison.kind, run).status in ("failed", "finished", "running"):
        return
    if isinstance(ending, int):
        ending = f"killed by {signal.Signals(-ending).name}" if killed else f"exit status {ending}"
    log = run.folder / LOG
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if log.exists() else []
    write_error(run.folder, "\n".join([f"{ending}; the end of {LOG}:", *tail]))
