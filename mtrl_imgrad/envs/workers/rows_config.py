"""Configuration of a group of rows. It is sent to worker processes, so reading it imports no simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowsConfig:
    """Configuration of a group of rows; small and picklable, so that a worker can build its own.

    Attributes:
        rows: Environment indices of the group's rows, for messages.
        task_names: The task of each row.
        tasks: The task's index of each row; with ``copies`` it selects the random streams.
        copies: Which copy of its task each row is.
        seed: Seed that all streams are spawned from.
        num_goals: Goals of each task, or None for a fresh one at every reset.
        reward_version: ``"v2"`` or ``"v1"``.
        render_mode: None or ``"rgb_array"``.
    """

    rows: tuple[int, ...]
    task_names: tuple[str, ...]
    tasks: tuple[int, ...]
    copies: tuple[int, ...]
    seed: int
    num_goals: int | None
    reward_version: str
    render_mode: str | None
