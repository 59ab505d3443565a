"""The logs of a run folder: a CSV table with one order of columns, and TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    CSVOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)

__all__ = ["OrderedCSV", "run_logger"]


class OrderedCSV(CSVOutputFormat):
    """SB3's table, with new columns in alphabetical order: SB3's own order differs from process to process.

    Args:
        path: of the table; replaced if it is there.
        columns: of an earlier table that this one goes on from; they come first.
    """

    def __init__(self, path: Path, columns: list[str] | None = None) -> None:
        super().__init__(str(path))
        self._add(columns or [])

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row."""
        self._add(sorted(filter_excluded_keys(key_values, key_excluded, "csv").keys() - set(self.keys)))
        super().write(key_values, key_excluded, step)

    def _add(self, columns: list[str]) -> None:
        """Write the header and all rows anew with more columns."""
        if not columns:
            return
        self.keys += columns
        self.file.seek(0)
        rows = self.file.read().splitlines()[1:]
        self.file.seek(0)
        self.file.write(
            "".join(f"{line}\n" for line in (",".join(self.keys), *(row + "," * len(columns) for row in rows)))
        )
        self.file.flush()


def run_logger(folder: Path, timesteps: int) -> Logger:
    """``progress.csv`` and TensorBoard events.

    A run that goes on after ``timesteps`` gets a table of its own, ``progress_<timesteps>.csv``, with the columns of
    the one before in their order.
    """
    earlier = {_steps_of(path): path for path in folder.glob("progress*.csv")}
    last = max((steps for steps in earlier if steps < timesteps), default=None)
    columns = None
    if last is not None:
        columns = [name for name in earlier[last].read_text().partition("\n")[0].split(",") if name]
    name = f"progress_{timesteps}.csv" if timesteps else "progress.csv"
    formats: list[KVWriter] = [OrderedCSV(folder / name, columns), TensorBoardOutputFormat(str(folder))]
    return Logger(str(folder), formats)


def _steps_of(path: Path) -> int:
    steps = path.stem.removeprefix("progress").removeprefix("_")
    return int(steps) if steps.isdecimal() else 0
