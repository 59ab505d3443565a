"""Seconds of learning by environment step, in ``clock.csv``, which a resumed run continues."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm
from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.reporting.atomic_files import write_text

CLOCK = "clock.csv"
ROW_EVERY = 5.0
"""Seconds between two rows while learning."""
HEADER = ("timesteps", "wall_seconds", "cpu_seconds", "train_success")


@dataclass(frozen=True)
class ClockRow:
    """Seconds of learning up to an environment step.

    Attributes:
        timesteps: environment steps over all tasks.
        wall_seconds: of learning, without evaluations.
        cpu_seconds: the same of the process and its threads; worker processes count where they have ended.
        train_success: mean over tasks of the latest training episodes; NaN before the first.
    """

    timesteps: int
    wall_seconds: float
    cpu_seconds: float
    train_success: float = math.nan

    def line(self) -> str:
        """A line of the file."""
        success = "" if math.isnan(self.train_success) else f"{self.train_success:.4f}"
        return f"{self.timesteps},{self.wall_seconds:.2f},{self.cpu_seconds:.2f},{success}\n"


def read_clock(folder: Path) -> list[ClockRow]:
    """The rows of a run folder; none where there is no file. A last line that was cut by a crash is left out.

    Raises:
        CheckpointError: if the file holds something else.
    """
    path = folder / CLOCK
    if not path.exists():
        return []
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        return [
            ClockRow(
                int(row["timesteps"]),
                float(row["wall_seconds"]),
                float(row["cpu_seconds"]),
                float(row["train_success"] or math.nan),
            )
            for row in csv.DictReader(whole.splitlines())
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a table of times ({error})") from error


class RunClock(BaseCallback):
    """Writes a row of ``clock.csv`` every few seconds, between two rollouts, and where it is told to.

    Checkpoints are saved at the same places. A resumed run goes on from the last row that is not younger than its
    checkpoint: work that a break threw away does not count.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._file: TextIO | None = None

    def _on_training_start(self) -> None:
        earlier = [row for row in read_clock(self.folder) if row.timesteps <= self.num_timesteps]
        rows = earlier if self.num_timesteps else []
        write_text(self.folder / CLOCK, ",".join(HEADER) + "\n" + "".join(row.line() for row in rows))
        last = rows[-1] if rows else ClockRow(0, 0.0, 0.0)
        wall, cpu = _now()
        self._wall_start, self._cpu_start = wall - last.wall_seconds, cpu - last.cpu_seconds
        self._file = open(self.folder / CLOCK, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        self.mark()

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._marked >= ROW_EVERY:
            self.mark()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.close()

    def mark(self) -> None:
        """Write a row."""
        if self._file is None:
            return
        wall, cpu = _now()
        agent = cast(MultiTaskAlgorithm, self.model)
        seconds = wall - self._wall_start, cpu - self._cpu_start
        self._file.write(ClockRow(agent.num_timesteps, *seconds, agent.train_success).line())
        self._file.flush()
        self._marked = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what is done inside out of the seconds."""
        wall, cpu = _now()
        try:
            yield
        finally:  # also of an evaluation that a signal ends: `close` writes a row
            wall_after, cpu_after = _now()
            if self._file is not None:
                self._wall_start += wall_after - wall
                self._cpu_start += cpu_after - cpu

    def close(self) -> None:
        """Write a last row and close the file, also where learning ended by an exception."""
        if self._file is not None:
            self.mark()
            self._file.close()
            self._file = None


def _now() -> tuple[float, float]:
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system
