"""Three processes with a Gloo group, started once, that run what they are sent: first two of them, or all."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SIZE = 3
TIMEOUT = 120.0
"""Seconds; a rank that waits for longer hangs."""


class ReplicaPool:
    """The ranks, from the side of the test."""

    def __init__(self, folder: Path, *preload: str) -> None:
        # Forked from a process that has imported torch once and run nothing yet: autograd does not survive a fork.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mtrl_imgrad.combiners", *preload])
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, f"file://{folder / 'ranks'}", theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
        """What ``function(group, *arguments)`` returns on each of ``size`` ranks; a module's own function."""
        for pipe in self._pipes[:size]:
            pipe.send((function, size, arguments))
        found: dict[Connection, Any] = {}
        waiting = self._pipes[:size]
        while waiting:
            ready = wait(waiting, TIMEOUT)
            assert ready, f"{len(waiting)} of {size} ranks hang"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                found[pipe], failure = pipe.recv()
                waiting.remove(pipe)
                if failure:  # the others may wait for this one, for ever
                    while left := wait(waiting, 5.0):
                        for other in left:
                            assert isinstance(other, Connection)
                            other.recv()
                            waiting.remove(other)
                    raise AssertionError(failure)
        return [found[pipe] for pipe in self._pipes[:size]]

    def close(self) -> None:
        """End the ranks."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()


@contextlib.contextmanager
def running_pool(folder: Path, *preload: str) -> Iterator[ReplicaPool]:
    """A pool that ends with the block."""
    pool = ReplicaPool(folder, *preload)
    try:
        yield pool
    finally:
        pool.close()


def _serve(rank: int, address: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=SIZE, timeout=timedelta(seconds=TIMEOUT))
    groups = {2: dist.new_group([0, 1]), SIZE: dist.group.WORLD}
    while (job := pipe.recv()) is not None:
        function, size, arguments = job
        try:
            pipe.send((function(groups[size], *arguments), ""))
        except BaseException:
            pipe.send((None, f"rank {rank}: {traceback.format_exc()}"))
    dist.destroy_process_group()
