"""Back-ends whose simulators return a NaN on demand, once. Worker processes import it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mtrl_imgrad.envs import MultiTaskVecEnv

ORDER = "POISONED_ROWS"
"""Environment variable: the file that orders the poison."""
WHERE = ("reward", "observation", "terminal observation", "first observation")
"""What can be poisoned; the first observation is that of a reset."""
COLUMN = 2


def order(where: str, row: int, value: float) -> None:
    """Have the next step, or the next reset for a first observation, return ``value`` for ``row``, in any process."""
    Path(os.environ[ORDER]).write_text(f"{where.replace(' ', '-')} {row} {value}")


def ordered(kind: str, rows: list[int]) -> tuple[int, float] | None:
    """The position within ``rows`` to poison and the value, if ordered for ``kind`` there; then it is done with."""
    path = Path(os.environ[ORDER])
    if not path.exists():
        return None
    where, row, value = path.read_text().split()
    where = {"terminal-observation": "observation"}.get(where, where)
    if where != kind or int(row) not in rows:
        return None
    path.unlink()
    return rows.index(int(row)), float(value)


def poison_step(rows: list[int], observations: np.ndarray, rewards: np.ndarray) -> None:
    """Poison what a step of ``rows`` returned, if ordered."""
    for kind, target in (("reward", rewards), ("observation", observations[:, COLUMN])):
        if (found := ordered(kind, rows)) is not None:
            target[found[0]] = found[1]


def poison_reset(rows: list[int], observations: np.ndarray) -> None:
    """Poison the first observations of ``rows``, if ordered."""
    if (found := ordered("first-observation", rows)) is not None:
        observations[found[0], COLUMN] = found[1]


@contextmanager
def poisonable(kind: type[MultiTaskVecEnv]) -> Iterator[None]:
    """Put the poison between a back-end and what checks it, where the back-end runs in this process."""
    reset, receive = kind._reset_rows, kind._recv

    def reset_rows(self: Any, rows: np.ndarray) -> np.ndarray:
        observations = reset(self, rows).copy()
        poison_reset(rows.tolist(), observations)
        return observations

    def recv(self: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations, rewards, success = receive(self)
        poison_step(list(range(self.num_envs)), observations, rewards)
        return observations, rewards, success

    kind._reset_rows, kind._recv = reset_rows, recv  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind._reset_rows, kind._recv = reset, receive  # type: ignore[method-assign]
