"""Random streams of environments: one for the goals of each task, one for each environment.

Adding a copy of a task changes no other stream, see `mtrl_imgrad.seeding`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtrl_imgrad.seeding import Stream, numpy_generator, stream_seed


def goal_generator(seed: int, task: int) -> np.random.Generator:
    """Generator that draws the list of goals of task number ``task``."""
    return numpy_generator(seed, Stream.GOALS, task)


def row_generator(seed: int, task: int, copy: int) -> np.random.Generator:
    """Generator of one environment: copy number ``copy`` of task number ``task``."""
    return numpy_generator(seed, Stream.ROWS, task, copy)


def row_seed(seed: int, task: int, copy: int) -> int:
    """A seed in [0, 2^31) for one environment, where a simulator has a generator of its own."""
    return stream_seed(seed, Stream.ROWS, task, copy) >> 1  # of 32 bits, of which simulators take 31


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
