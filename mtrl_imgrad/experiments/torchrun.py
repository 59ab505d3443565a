"""The process group of a command that ``torchrun`` started in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtrl_imgrad.errors import ArgumentError


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return _started_by_torchrun() == 1 or os.environ.get("RANK", "0") == "0"


def _started_by_torchrun() -> int:
    """Number of processes; 1 without torchrun, which sets both variables."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def torchrun_group() -> Iterator[Any]:
    """A group of all processes that ``torchrun`` started, as long as the block lasts; None for one process.

    With a GPU a process, which becomes its ``cuda`` device, gradients go over NCCL; on the CPU over Gloo.
    """
    if _started_by_torchrun() == 1:
        yield None
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= count:
            raise ArgumentError(
                f"torchrun started a process of local rank {place}, but this machine has {count} GPU(s): lower "
                "--nproc-per-node, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU"
            )
        torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    try:
        # One process may be through before another has its connections; if it ended now, the other would fail.
        dist.barrier()
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def refuse_torchrun(command: str) -> None:
    """Refuse a command that would do the same work in each process.

    Args:
        command: as the user typed it.
    """
    count = _started_by_torchrun()
    if count > 1:
        raise ArgumentError(
            f"mtrl-imgrad {command} works in one process, torchrun started {count}, which would all do the same: start "
            "it without torchrun. Only mtrl-imgrad supervised trains one network in several processes"
        )
