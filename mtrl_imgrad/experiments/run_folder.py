"""Folders of runs: a new one for each run, never one that holds a run already."""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from pathlib import Path

from mtrl_imgrad.errors import ArgumentError

CONFIG, RESULT = "config.yaml", "result.json"
"""Files of a run: all of its settings, from its start on; its numbers, the last file to be written."""


def new_run_dir(run_dir: Path | None, name: str, contents: str = CONFIG) -> Path:
    """The folder of a new run; nothing is written.

    Args:
        run_dir: None takes ``runs/<name>-<time>``.
        name: of the run.
        contents: the file by which a folder is known to hold a run.

    Raises:
        ArgumentError: if the folder holds a run, or cannot be made.
    """
    if run_dir is None:
        return Path("runs") / f"{name.replace('/', '-')}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    run_dir = run_dir.expanduser()
    if (run_dir / contents).exists():
        raise ArgumentError(f"run_dir {run_dir} holds a run already; give another folder, nothing was changed")
    there = next(place for place in (run_dir, *run_dir.absolute().parents) if os.path.exists(place))
    if not (there.is_dir() and os.access(there, os.W_OK)):  # said now, not after the first hour
        raise ArgumentError(f"run_dir {run_dir} cannot be made ({there} is no folder to write to); take another folder")
    return run_dir


def in_shell(path: Path) -> str:
    """A path as a word of a command that is printed to be copied: in quotes where it has a blank and the like."""
    return shlex.quote(str(path))


def check_run(run: Path, *files: str) -> None:
    """Check that a folder holds a run.

    Args:
        run: the folder.
        files: that it must have beside ``config.yaml``.

    Raises:
        ArgumentError: if a file is not there; names it.
    """
    for name in (CONFIG, *files):
        if not (run / name).is_file():
            raise ArgumentError(f"run {run}: there is no {name}; expected a folder that `train` made")
