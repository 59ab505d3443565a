"""A run as a process of its own, on this machine or on a node of a cluster.

A node loads this file for every run, so it imports nothing that is slow to import.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

INTERRUPTED = 75
"""Exit status of a run that a signal stopped and that can go on: sysexits' EX_TEMPFAIL."""
POLL_EVERY = 0.2
"""Seconds between two looks at a process."""


class BrokenOffError(Exception):
    """A run was broken off by something other than its comparison, such as a node that is being shut down."""


def start_process(
    folder: Path, name: str, log: Path, threads: int, cwd: Path | None = None, hide_gpus: bool = False
) -> subprocess.Popen[bytes]:
    """A process that ends with this one, also where this one is killed: it watches its standard input.

    Args:
        folder: of the comparison.
        name: of the run, as in `PlannedRun`.
        log: file that its output is appended to.
        threads: of numerical libraries, unless ``OMP_NUM_THREADS`` is set.
        cwd: where it works.
        hide_gpus: whether it sees none.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if hide_gpus else {}
    log.parent.mkdir(parents=True, exist_ok=True)
    worker = [sys.executable, "-m", "mtrl_imgrad.experiments.comparisons.worker", "--with-parent"]
    with open(log, "ab") as file:
        return subprocess.Popen(
            [*worker, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
            env={"OMP_NUM_THREADS": str(threads), **os.environ, **hidden},
            cwd=cwd,
        )


def make_run(folder: str, name: str, log: str, threads: int, cwd: str, node: str, hide_gpus: bool) -> int:
    """Make a run on a node and wait for it; Ctrl-C, by which a cluster cancels, lets it save a checkpoint.

    Args:
        folder: of the comparison, on a file system that all nodes share.
        name: of the run.
        log: file that its output is appended to.
        threads: of numerical libraries.
        cwd: where it works.
        node: what the cluster calls the node, for the log.
        hide_gpus: whether it sees none.

    Returns:
        Its exit status.

    Raises:
        BrokenOffError: if it can be tried again: it goes on from its last checkpoint.
    """
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"on {socket.gethostname()}, node {node}\n")
    with start_process(Path(folder), name, Path(log), threads, Path(cwd), hide_gpus) as process:
        try:
            while process.poll() is None:  # waiting inside the system would let no KeyboardInterrupt through
                time.sleep(POLL_EVERY)
        except KeyboardInterrupt:
            process.terminate()
            return process.wait()
    if process.returncode < 0 or process.returncode == INTERRUPTED:
        raise BrokenOffError(f"broken off with status {process.returncode}")
    return process.returncode
