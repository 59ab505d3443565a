"""Runs as processes of this machine, several at a time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from rich.console import Console

from mtrl_imgrad.errors import LearningInterruptedError, MtrlImgradError
from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.pool import run_all
from mtrl_imgrad.experiments.comparisons.processes import start_process
from mtrl_imgrad.experiments.comparisons.state import LOG
from mtrl_imgrad.experiments.comparisons.worker import execute


def run_here(comparison: Comparison, runs: Sequence[PlannedRun], console: Console) -> None:
    """One run after the other in this process: for a debugger."""
    for run in runs:
        try:
            execute(comparison.folder, run.name, console)
        except LearningInterruptedError:
            raise
        except MtrlImgradError as error:
            console.print(f"{run.label} failed: {error}", markup=False, soft_wrap=True)


def run_locally(
    comparison: Comparison, runs: Sequence[PlannedRun], jobs: int, console: Console, progress_bar: bool
) -> None:
    """At most ``jobs`` processes at a time, each with its share of the cores; see `run_all`."""
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def start(run: PlannedRun) -> _Process:
        return _Process(start_process(comparison.folder, run.name, run.folder / LOG, threads))

    run_all(comparison, runs, jobs, console, progress_bar, start)


class _Process:
    """A `StartedRun` of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        """See `StartedRun`."""
        status = self._process.poll()
        if status is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return status

    def stop(self, at_once: bool) -> None:
        """See `StartedRun`."""
        (self._process.kill if at_once else self._process.terminate)()
