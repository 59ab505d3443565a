"""The state of a run, read from its folder: the same on every launcher."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.experiments.comparisons.kinds import Progress, RunKind
from mtrl_imgrad.experiments.comparisons.plan import PlannedRun
from mtrl_imgrad.experiments.comparisons.processes import POLL_EVERY
from mtrl_imgrad.experiments.run_folder import CONFIG, RESULT
from mtrl_imgrad.reporting.atomic_files import write_text

ERROR, LOG, LOCK = "error.txt", "output.log", ".lock"
A_LOOK = 1.0
"""Seconds, generously, for which a process that only looks at a run has its lock, shared with all that look."""

Status = Literal["waiting", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    Attributes:
        status: ``stopped``: begun, and no process has it.
        progress: of its learning.
        success: in the final evaluation, or of the latest training episodes.
        error: what it failed by.
    """

    status: Status
    progress: Progress
    success: float | None = None
    error: str = ""


def read_state(kind: RunKind, run: PlannedRun) -> RunState:
    """The state of a run.

    Raises:
        CheckpointError: if its result or its clock cannot be read.
    """
    folder = run.folder
    progress = kind.progress(run.config, folder)
    is_running = _is_locked(folder)  # looked at first: a run writes its result before it gives its lock back
    if (result := _content(folder / RESULT)) is not None:
        return RunState("finished", progress, _final_success(folder / RESULT, result))
    if is_running:
        return RunState("running", progress, progress.success)
    if (error := _content(folder / ERROR)) is not None:
        return RunState("failed", progress, progress.success, error.strip())
    begun = (folder / CONFIG).exists()
    return RunState("stopped" if begun else "waiting", progress, progress.success)


def _content(path: Path) -> str | None:
    """The text of a file; None where there is none, or another process has just removed it."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None


def _final_success(path: Path, text: str) -> float | None:
    try:
        return json.loads(text).get("final", {}).get("success")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a result ({error}); without that file the run is made again"
        ) from error


def write_error(folder: Path, message: str) -> None:
    """Keep what a run failed by."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ERROR, message + "\n")


@contextmanager
def locked(folder: Path, patience: float = A_LOOK) -> Iterator[None]:
    """Lock a run's folder against a second process; the system frees it when a process dies.

    Args:
        folder: of the run.
        patience: seconds to wait for another process that holds it.

    Raises:
        ArgumentError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + patience
        while not _lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= until:
                holder = os.read(descriptor, 200).decode().strip()
                raise ArgumentError(f"{folder} is being run by another process ({holder})")
            time.sleep(POLL_EVERY)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / LOCK, os.O_RDONLY)  # which another user's folder allows, too
        try:
            return not _lock(descriptor, fcntl.LOCK_SH)  # which two that look may have at once
        finally:
            os.close(descriptor)
    return False


def _lock(descriptor: int, kind: int) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
