"""The table of a run's logs, ``progress.csv``: one file, one order of columns, also over a break."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from mtrl_imgrad.reporting.atomic_files import write_text

PROGRESS = "progress.csv"
STEPS = "time/total_timesteps"
"""The column by which a run that goes on knows which rows a break threw away."""
GROUPS = ("time", "eval", "rollout", "train", "grad", "combiner")
"""Order of columns by what stands before the first slash; others follow. Within a group: the alphabet's."""


class OrderedCSV(KVWriter):
    """A table whose columns have the same order in every run.

    Args:
        path: of the table.
        timesteps: 0 begins a new table; else rows up to there are kept, later ones, which a break threw away, are not.
    """

    def __init__(self, path: Path, timesteps: int = 0) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        columns, rows = _read(path) if timesteps and path.exists() else ([], [])
        kept: list[dict[str, str]] = []
        for row in rows:
            if row.get(STEPS) and int(float(row[STEPS])) > timesteps:
                break
            kept.append(row)
        self._begin(columns, kept)

    def _begin(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Write the whole table, and go on at its end."""
        self._columns = columns
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        if columns:
            writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, table.getvalue())
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row; a new column goes to its place."""
        row = filter_excluded_keys(key_values, key_excluded, "csv")
        if new := row.keys() - set(self._columns):
            self.close()
            self._begin(sorted({*self._columns, *new}, key=_place), _read(self._path)[1])
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _place(column: str) -> tuple[int, str]:
    group = column.partition("/")[0]
    return GROUPS.index(group) if group in GROUPS else len(GROUPS), column


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or []), list(reader)
