"""Random streams: one for the goals of each task, one for each environment, all spawned from a single seed.

``numpy.random.SeedSequence`` keeps them independent, however close two seeds are; adding a copy of a task
changes no other stream.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["goal_generator", "row_generators", "row_seeds"]

_GOALS, _ROWS = 0, 1


def goal_generator(seed: int, task: int) -> np.random.Generator:
    """Generator that draws the list of goals of task number ``task``."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_GOALS, task)))


def row_generators(seed: int, num_tasks: int, copies: int) -> list[np.random.Generator]:
    """A generator for each environment, task-major."""
    return [
        np.random.default_rng(_row(seed, task, copy)) for task in range(num_tasks) for copy in range(copies)
    ]


def row_seeds(seed: int, num_tasks: int, copies: int) -> npt.NDArray[np.int64]:
    """A seed in [0, 2^31) for each environment ``[num_tasks, copies]``, for simulators with generators of their own."""
    words = [
        [_row(seed, task, copy).generate_state(1)[0] >> 1 for copy in range(copies)]
        for task in range(num_tasks)
    ]
    return np.array(words, dtype=np.int64)


def _row(seed: int, task: int, copy: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(_ROWS, task, copy))
