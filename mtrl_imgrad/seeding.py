"""Named random streams: everything that a run draws follows from its one seed, each purpose from a stream of its own.

A stream is a spawn key of `numpy.random.SeedSequence`: streams of one seed, and the same stream of two seeds, are
independent however close the seeds are, and a new stream changes no other.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Stream(Enum):
    """The streams: part of the library, spawn key, number of indices that follow the key, bits of a torch seed.

    An entry never changes: runs would no longer repeat. Agents and environments share the run's seed, so that keys of
    both are different; supervised runs and data sets have seeds of their own.
    """

    REPLAY = ("agent", (), 0, 32)
    """Rows of a batch from the replay."""
    UPDATE = ("agent", (1,), 0, 32)
    """Action noise and dropout masks of updates."""
    MINIBATCHES = ("agent", (2,), 0, 32)
    """Order of a rollout's rows."""
    ACTOR_COMBINER = ("agent", (3,), 0, 63)
    """What the actor's combiner draws."""
    CRITIC_COMBINER = ("agent", (4,), 0, 63)
    """What the critic's combiner draws."""
    EVALUATION = ("agent", (5,), 1, 63)
    """Sampled actions of an evaluation while learning; index: environment steps."""

    GOALS = ("environment", (0,), 1, 32)
    """Goals of a task; index: task."""
    ROWS = ("environment", (1,), 2, 32)
    """One environment; indices: task, copy."""

    ORDER = ("supervised", (0,), 1, 63)
    """Order of the images; index: epoch."""
    TORCH = ("supervised", (1,), 1, 63)
    """Torch's global generators, which dropout draws from; index: epoch."""
    AUGMENTATION = ("supervised", (2,), 2, 63)
    """Zoom and mirroring; indices: epoch, item."""
    COMBINER = ("supervised", (3,), 0, 63)
    """What the combiner draws."""
    RANK = ("supervised", (4,), 2, 63)
    """`TORCH` on a rank after the first; indices: epoch, rank."""
    TASK_ORDER = ("supervised", (5,), 3, 63)
    """Order of the images of a task's own loader; indices: epoch, task, pass of the epoch."""
    MIXING = ("supervised", (6,), 1, 63)
    """Which tasks take part in the steps of an epoch; index: epoch."""

    LOOK = ("supervised", (7,), 1, 63)
    """`TORCH` in an evaluation, where it is in training mode; index: rank."""

    TRAJECTORIES = ("synthetic", (), 1, 63)
    """What a trajectory's combiner draws; index: trajectory."""

    SCENES = ("scenes", (), 2, 32)
    """A simulated scene; indices: split, item."""

    def __init__(self, part: str, key: tuple[int, ...], num_indices: int, bits: int) -> None:
        self.part = part
        self.key = key
        self.num_indices = num_indices
        self.bits = bits


def seed_sequence(seed: int | None, stream: Stream, *indices: int) -> np.random.SeedSequence:
    """The seed sequence of a stream.

    Args:
        seed: non-negative, of the run; None takes fresh entropy from the operating system.
        stream: which one.
        indices: non-negative integers, as many as the stream takes.
    """
    assert len(indices) == stream.num_indices, f"{stream} takes {stream.num_indices} indices, got {indices}"
    return np.random.SeedSequence(seed, spawn_key=(*stream.key, *indices))


def stream_seed(seed: int | None, stream: Stream, *indices: int) -> int:
    """An integer seed in [0, 2^63) from a stream, see `seed_sequence`."""
    sequence = seed_sequence(seed, stream, *indices)
    if stream.bits == 32:
        return int(sequence.generate_state(1)[0])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)  # torch takes signed integers


def torch_generator(
    seed: int | None, stream: Stream, *indices: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on ``device`` at the beginning of a stream, see `seed_sequence`."""
    import torch  # worker processes of environments start without torch

    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream, *indices))


def numpy_generator(seed: int | None, stream: Stream, *indices: int) -> np.random.Generator:
    """A NumPy generator at the beginning of a stream, see `seed_sequence`."""
    return np.random.default_rng(seed_sequence(seed, stream, *indices))


def fresh_seed() -> int:
    """A seed in [0, 2^32) from the operating system's entropy, for a run that was given none."""
    return int(np.random.SeedSequence().generate_state(1)[0])
