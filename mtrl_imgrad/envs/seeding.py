"""Random streams: one for the goals of each task, one for each environment, all spawned from a single seed.

``numpy.random.SeedSequence`` keeps them independent, however close two seeds are; adding a copy of a task
changes no other stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["RowStreams", "goal_generator", "row_generator", "row_seed"]

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


class RowStreams:
    """The streams of all environments, and where each stood at its last reset, so that this can be repeated.

    Args:
        seed: that they are spawned from.
        num_tasks: Number of tasks.
        copies: Environments of each task.
    """

    def __init__(self, seed: int, num_tasks: int, copies: int) -> None:
        self._generators = [row_generator(seed, task, copy) for task in range(num_tasks) for copy in range(copies)]
        self._before = [generator.bit_generator.state for generator in self._generators]

    def at_reset(self, row: int) -> np.random.Generator:
        """The stream of a row that is about to be reset."""
        self._before[row] = self._generators[row].bit_generator.state
        return self._generators[row]

    def get_state(self) -> list[Any]:
        """Where each stream stood at its row's last reset."""
        return list(self._before)

    def set_state(self, states: list[Any]) -> None:
        """Go back to `get_state`: the next reset of each row draws what its last one drew."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.bit_generator.state = state


def _row(seed: int, task: int, copy: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(_ROWS, task, copy))
