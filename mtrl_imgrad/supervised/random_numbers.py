"""Torch's global generators, which dropout draws from, as they follow from a run's seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtrl_imgrad.seeding import Stream, stream_seed


@contextmanager
def seeded_generators(device: torch.device, seed: int, stream: Stream, *indices: int) -> Iterator[None]:
    """The generators follow from a stream of the seed inside, and are as they were afterwards.

    Args:
        device: whose generator is seeded beside the CPU's.
        seed: of the run.
        stream: of the seed.
        indices: as many as the stream takes.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(seed, stream, *indices))
        yield
