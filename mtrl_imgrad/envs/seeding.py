"""Random streams: one for the goals of each task, one for each environment, all spawned from a single seed.

``numpy.random.SeedSequence`` keeps them independent, however close two seeds are; adding a copy of a task
changes no other stream.
"""

from __future__ import annotations

import numpy as np

__all__ = ["goal_generator", "row_generator", "row_seed"]

_GOALS, _ROWS = 0, 1


def goal_generator(seed: int, task: int) -> np.random.Generator:
    """Generator that draws the list of goals of task number ``task``."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_GOALS, task)))


def row_generator(seed: int, task: int, copy: int) -> np.random.Generator:
    """Generator of one environment: copy number ``copy`` of task number ``task``."""
    return np.random.default_rng(_row(seed, task, copy))


def row_seed(seed: int, task: int, copy: int) -> int:
    """A seed in [0, 2^31) for one environment, where a simulator has a generator of its own."""
    return int(_row(seed, task, copy).generate_state(1)[0] >> 1)


def _row(seed: int, task: int, copy: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(_ROWS, task, copy))
