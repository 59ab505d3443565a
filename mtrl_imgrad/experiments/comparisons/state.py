"""The state of a run, read from its folder: the same on every launcher."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.comparisons.kinds import Progress, RunKind
from mtrl_imgrad.experiments.comparisons.plan import PlannedRun
from mtrl_imgrad.reporting.atomic_files import write_text

RESULT, ERROR, LOG, LOCK = "result.json", "error.txt", "output.log", ".lock"

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
    """The state of a run."""
    folder = run.folder
    progress = kind.progress(run.config, folder)
    if (folder / RESULT).exists():
        final = json.loads((folder / RESULT).read_text(encoding="utf-8")).get("final", {})
        return RunState("finished", progress, final.get("success"))
    if _is_locked(folder):
        return RunState("running", progress, progress.success)
    if (folder / ERROR).exists():
        return RunState("failed", progress, progress.success, (folder / ERROR).read_text(encoding="utf-8").strip())
    begun = (folder / "config.yaml").exists()
    return RunState("stopped" if begun else "waiting", progress, progress.success)


def write_error(folder: Path, message: str) -> None:
    """Keep what a run failed by."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ERROR, message + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder against a second process; the system frees it when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 200).decode().strip()
            raise ArgumentError(f"{folder} is being run by another process ({holder})") from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / LOCK, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
    return False
