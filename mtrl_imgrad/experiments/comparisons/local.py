"""Runs as processes of this machine, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from mtrl_imgrad.errors import LearningInterruptedError, MtrlImgradError
from mtrl_imgrad.experiments.comparisons.live import ComparisonView
from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.state import ERROR, LOG, read_state, write_error
from mtrl_imgrad.experiments.comparisons.worker import INTERRUPTED, execute

POLL_EVERY = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    """At most ``jobs`` processes at a time, each with its share of the cores.

    A run's output goes to its ``output.log``. One that fails does not stop the others. Ctrl-C or SIGTERM let every run
    save a checkpoint; a second one ends them at once.

    Raises:
        LearningInterruptedError: if a signal stopped it; says how to go on.
    """
    waiting = list(runs)
    running: dict[str, tuple[PlannedRun, subprocess.Popen[bytes]]] = {}
    shown = ComparisonView(comparison, comparison.runs(), jobs, console, progress_bar)
    with _signals_kept() as received, shown as view:
        told = 0
        while waiting or running:
            if received:
                waiting.clear()
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running[run.name] = (run, _start(comparison, run, jobs))
            if told < min(len(received), 2):
                told += 1
                view.note = "stopping: every run saves a checkpoint; once more to stop at once"
                for _, process in running.values():
                    process.send_signal(signal.SIGTERM if told == 1 else signal.SIGKILL)
            for name, (run, process) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    assert process.stdin is not None
                    process.stdin.close()
                    _note_end(comparison, run, process.returncode, bool(received))
                    view.draw(now=True)
            view.draw()
            time.sleep(POLL_EVERY)
    if received:
        stopped_by = signal.Signals(received[0]).name
        raise LearningInterruptedError(
            f"the comparison was interrupted by {stopped_by}; to go on: {comparison.command()}", received[0]
        )


def _start(comparison: Comparison, run: PlannedRun, jobs: int) -> subprocess.Popen[bytes]:
    """A process that ends with this one, also where this one is killed: it watches its standard input."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / ERROR).unlink(missing_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    worker = [sys.executable, "-m", "mtrl_imgrad.experiments.comparisons.worker", "--with-parent"]
    with open(run.folder / LOG, "ab") as log:
        return subprocess.Popen(
            [*worker, str(comparison.folder), run.name],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
        )


def _note_end(comparison: Comparison, run: PlannedRun, status: int, stopping: bool) -> None:
    """Keep what a process failed by, if it could not do so itself."""
    interrupted = status == INTERRUPTED or (stopping and status < 0)
    if status == 0 or interrupted or read_state(comparison.kind, run).status in ("failed", "finished", "running"):
        return
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    tail = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    write_error(run.folder, "\n".join([f"{how}; the end of {LOG}:", *tail]))


@contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are put into a list as long as the block lasts."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
