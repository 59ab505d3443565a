"""The outcomes on the synthetic problem as files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.reporting.atomic_files import make_folder, write_text
from mtrl_imgrad.reporting.json_numbers import null_for_nan
from mtrl_imgrad.reporting.tables import TextTable
from mtrl_imgrad.synthetic.measures import Outcome
from mtrl_imgrad.validation import checked


@checked
def save_outcomes(outcomes: Sequence[Outcome], settings: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``results.json`` (settings and outcomes) and ``results.csv`` (a row a trajectory).

    A number that is not finite (the imbalance beside a zero gradient; a mean over no steps) is null and an empty cell.
    """
    if not outcomes:
        raise ArgumentError("outcomes must hold at least one outcome, got none")
    rows = [null_for_nan(dataclasses.asdict(outcome)) for outcome in outcomes]
    make_folder("folder", folder)
    as_json, as_csv = folder / "results.json", folder / "results.csv"
    lines = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in rows)
    head = json.dumps(dict(settings), indent=1, allow_nan=False)
    write_text(as_json, f'{{"settings": {head},\n"outcomes": [\n{lines}\n]}}\n')
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(_flat(rows[0])))
    writer.writeheader()
    writer.writerows(map(_flat, rows))
    write_text(as_csv, table.getvalue())
    return [as_json, as_csv]


@checked
def save_tables(tables: Sequence[TextTable], folder: Path) -> Path:
    """Write ``tables.md``."""
    path = folder / "tables.md"
    write_text(path, "\n".join(table.markdown() for table in tables))
    return path


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs as two columns, ``_1`` and ``_2``."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= {f"{key}_{i}": part for i, part in enumerate(value, 1)} if isinstance(value, list) else {key: value}
    return flat
