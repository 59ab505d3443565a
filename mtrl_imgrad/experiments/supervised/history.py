"""The numbers of a run: a row for each epoch, a row for each logged step, and the reported result."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.reporting.atomic_files import write_text
from mtrl_imgrad.reporting.json_numbers import null_for_nan
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.settings import ReportConfig
from mtrl_imgrad.supervised.tasks import TaskSpec


@dataclass(frozen=True)
class RunResult:
    """The numbers that a run reports.

    Attributes:
        results: ``{task: {metric: value}}``.
        split: that they are of.
        epochs: that they are the mean of, counted from 0.
        how: the same in words.
        train_seconds: of the whole training.
        steps: updates.
    """

    results: dict[str, dict[str, float]]
    split: str
    epochs: list[int]
    how: str
    train_seconds: float
    steps: int

    def save(self, path: Path) -> None:
        """Write ``result.json``; NaN is written as null."""
        write_text(path, json.dumps(null_for_nan(dataclasses.asdict(self)), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> RunResult:
        """Read `save`.

        Raises:
            CheckpointError: if the file is missing or not a result.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            data["results"] = {
                task: {metric: math.nan if value is None else float(value) for metric, value in metrics.items()}
                for task, metrics in data["results"].items()
            }
            return cls(**data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: cannot be read as a result ({error})") from error


def reported_result(
    records: Sequence[EpochRecord], reporting: ReportConfig, tasks: Sequence[TaskSpec], split: str
) -> RunResult:
    """The result of a finished run.

    Args:
        records: of all epochs.
        reporting: ``"last"``: the mean of every metric over the last epochs; ``"best"``: those of `best_epoch`.
        tasks: of the run.
        split: which one to report.
    """
    if reporting.report == "best":
        chosen = [records[best_epoch(records, tasks)]]
        rule = f"mean {_selecting(tasks)}" if _selecting(tasks) else "mean loss relative to the first epoch"
        how = f"{split}, epoch {chosen[0].epoch + 1}, the best of {len(records)} by {rule} in val"
    else:
        chosen = list(records[-reporting.last_epochs :])
        how = (
            f"{split}, mean of the last {len(chosen)} of {len(records)} epochs" if len(chosen) > 1 else f"{split}, last"
        )
    return RunResult(
        results={
            task: {
                metric: float(np.mean([record.results[split][task][metric] for record in chosen]))
                for metric in chosen[0].results[split][task]
            }
            for task in chosen[0].results[split]
        },
        split=split,
        epochs=[record.epoch for record in chosen],
        how=how,
        train_seconds=sum(record.seconds for record in records),
        steps=records[-1].step,
    )


def best_epoch(records: Sequence[EpochRecord], tasks: Sequence[TaskSpec]) -> int:
    """Index of the evaluated record that is best in validation.

    For attributes by their mean F1, as in the papers on CelebA; for classifications by their mean accuracy; else by the
    mean over tasks of the validation loss relative to the first evaluated epoch's (ours: no scale of a loss counts).
    The first of equals; one whose number is not finite comes last.
    """
    evaluated = [i for i, record in enumerate(records) if "val" in record.results]
    first = records[evaluated[0]].losses["val"]
    known = [name for name in first if any(not math.isnan(records[i].losses["val"][name]) for i in evaluated)]
    selecting = _selecting(tasks)

    def score(i: int) -> float:
        if selecting is not None:
            values = [task[selecting] for task in records[i].results["val"].values()]
            labelled = [value for value in values if not math.isnan(value)]  # of a task without a label in val: NaN
            mean = float(np.mean(labelled)) if labelled else math.nan
        else:
            losses = records[i].losses["val"]
            relative = [losses[name] / first[name] if first[name] else 0.0 for name in known]
            mean = -float(np.mean(relative)) if relative else math.nan
        return mean if math.isfinite(mean) else -math.inf

    return max(evaluated, key=score)


def epoch_row(record: EpochRecord) -> dict[str, float]:
    """A record as one flat row: ``train/loss/<task>``, ``<split>/<task>/<metric>`` and so on."""
    row: dict[str, float] = {"epoch": record.epoch, "step": record.step, "learning_rate": record.learning_rate}
    row["seconds"] = round(record.seconds, 3)
    row |= {f"train/loss/{task}": loss for task, loss in record.train_losses.items()}
    if record.non_finite:
        row["train/skipped_steps"] = record.skipped_steps
        row |= {f"train/non_finite/{task}": count for task, count in record.non_finite.items()}
    for split, losses in record.losses.items():
        row |= {f"{split}/loss/{task}": loss for task, loss in losses.items()}
    for split, results in record.results.items():
        for task, metrics in results.items():
            row |= {f"{split}/{task}/{metric}": value for metric, value in metrics.items()}
    return row


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write ``epochs.csv`` or ``diagnostics.csv``, a row for each epoch or logged step; empty cells for no value."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if math.isnan(value) else repr(value) for name, value in row.items()})
    write_text(path, file.getvalue())


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of one of the two files: counts as int, measured values as float, NaN for empty cells.

    Raises:
        CheckpointError: if the file is missing or holds something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        return [{name: _number(value) for name, value in zip(header, row, strict=True)} for row in rows if row]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a table of numbers ({error})") from error


def _number(text: str) -> float:
    if not text:
        return math.nan
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _selecting(tasks: Sequence[TaskSpec]) -> str | None:
    """The metric that chooses an epoch, where all tasks have the same one."""
    names = {task.record.score if task.record.selects else None for task in tasks}
    return names.pop() if len(names) == 1 else None
