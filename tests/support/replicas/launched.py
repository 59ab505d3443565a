"""A script on several ranks, as torchrun starts it, without importing torch once a rank."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 120.0
"""Seconds; a rank that takes longer hangs."""


def outputs_of_ranks(script: Path, arguments: Sequence[str], size: int, folder: Path) -> list[str]:
    """What each rank of a script prints.

    Args:
        script: whose ``__main__`` is run.
        arguments: of its command line.
        size: number of ranks.
        folder: for what they print.
    """
    # Forked from a process that has imported torch and run nothing yet, see `ReplicaPool`.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mtrl_imgrad.combiners"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = [folder / f"rank_{rank}.txt" for rank in range(size)]
    processes = [
        context.Process(target=_run, args=(script, list(arguments), rank, size, port, file), daemon=True)
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size, f"ranks ended with {codes}: {[file.read_text() for file in files]}"
    return [file.read_text() for file in files]


def _run(script: Path, arguments: list[str], rank: int, size: int, port: int, file: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = [script.name, *arguments]
    with file.open("w") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        runpy.run_path(str(script), run_name="__main__")
