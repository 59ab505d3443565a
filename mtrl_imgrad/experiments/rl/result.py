"""``result.json``: a finished run as numbers, small enough to be kept where its folder is not."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.experiments.config_files import config_hash, plain
from mtrl_imgrad.experiments.rl.clock import ClockRow, read_clock
from mtrl_imgrad.experiments.rl.config import load_config
from mtrl_imgrad.experiments.rl.csv_table import PROGRESS, STEPS
from mtrl_imgrad.experiments.rl.methods import method_of
from mtrl_imgrad.experiments.run_folder import CONFIG, RESULT, check_run
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import write_text
from mtrl_imgrad.reporting.json_numbers import null_for_nan

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints within the run's."""
FORMAT = 1
LOG_POINTS = 100
"""Rows of the logs that are kept; of more, every n-th."""
LOGGED = re.compile(
    r"grad/(actor|critic)/(imbalance|cos_min|conflict_fraction|pareto_failure|(norm|direction_cosine)/.+)"
    r"|combiner/(actor|critic)/(weight/.+|cos_theta)|train/(critic|value)_loss/.+"
)
"""Columns of ``progress.csv`` that are kept: how the task gradients stood to each other, weights, critics' losses."""
COSINE = re.compile(r"grad/(actor|critic)/cosine/(.+)")
COSINE_PARTS = 4
"""Parts of training whose mean cosines between the task gradients are kept."""


def write_result(folder: Path) -> None:
    """Write ``result.json`` of a run that is at its end.

    Raises:
        ArgumentError: if a file of the run is not there.
        CheckpointError: if a file of the run cannot be read, or this one cannot be written.
    """
    write_text(folder / RESULT, json.dumps(make_result(folder), allow_nan=False) + "\n")


def make_result(folder: Path) -> dict[str, Any]:
    """The numbers of a run that is at its end, from its folder alone.

    ``final`` is the evaluation after training, ``best`` the best of those while training by its own episodes (which
    makes it look better than it is), ``curve`` all of them, with the seconds of learning before each, ``logs`` a sample
    of the gradients' diagnostics by environment step, ``cosines`` the mean cosine of each pair of tasks in each quarter
    of training: by network a list of matrices ``[K, K]``, None for a quarter without any. NaN is null.
    """
    check_run(folder, PROGRESS)
    config = load_config(folder / CONFIG)
    history = EvaluationHistory.load(folder / "evaluations.npz")
    final = SuccessReport.load(folder / "evaluation_after")
    clock = read_clock(folder)
    rows = _logged_rows(folder)
    best = int(np.argmax(history.scores[:-1])) if len(history) > 1 else 0
    last = clock[-1] if clock else ClockRow(int(history.timesteps[-1]), math.nan, math.nan)
    result = {
        "format": FORMAT,
        "kind": "rl",
        "method": method_of(config.agent),
        "seed": config.seed,
        "tasks": list(history.task_names),
        "config_hash": config_hash(config),
        "config": plain(dataclasses.asdict(dataclasses.replace(config, run_dir=None))),
        "versions": installed_versions(),
        "timesteps": int(history.timesteps[-1]),
        "wall_seconds": last.wall_seconds,
        "cpu_seconds": last.cpu_seconds,
        "final": _evaluation(int(history.timesteps[-1]), final),
        "best": _evaluation(int(history.timesteps[best]), history.reports[best]),
        "curve": _curve(history, clock),
        "logs": _logs(rows),
        "cosines": _cosines(rows, history.task_names, int(history.timesteps[-1])),
    }
    return null_for_nan(result)


def _evaluation(timesteps: int, report: SuccessReport) -> dict[str, Any]:
    return {
        "timesteps": timesteps,
        "protocol": dataclasses.asdict(report.protocol),
        "episodes": report.num_episodes,
        "success": report.mean_success,
        "successes": _counts(report),
        "returns": report.returns.mean(axis=1).tolist(),
    }


def _counts(report: SuccessReport) -> list[int | None]:
    """Successful episodes of each task; None for a task without a notion of success."""
    assert report.has_success is not None
    counts = zip(report.successes.sum(axis=1).tolist(), report.has_success.tolist(), strict=True)
    return [count if known else None for count, known in counts]


def _curve(history: EvaluationHistory, clock: Sequence[ClockRow]) -> dict[str, Any]:
    """All evaluations, a column a list; ``successes`` and ``returns`` have a list for each evaluation."""
    seconds = [_seconds(clock, steps) for steps in history.timesteps.tolist()]
    return {
        "timesteps": history.timesteps.tolist(),
        "wall_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [cpu for _, cpu in seconds],
        "episodes": history.num_episodes.tolist(),
        "successes": [_counts(report) for report in history.reports],
        "returns": [report.returns.mean(axis=1).round(3).tolist() for report in history.reports],
    }


def _seconds(clock: Sequence[ClockRow], timesteps: int) -> tuple[float, float]:
    """Seconds of learning when the clock passed ``timesteps``, by a straight line between two rows."""
    if not clock:
        return math.nan, math.nan
    steps = [row.timesteps for row in clock]
    wall = np.interp(timesteps, steps, [row.wall_seconds for row in clock])
    cpu = np.interp(timesteps, steps, [row.cpu_seconds for row in clock])
    return round(float(wall), 2), round(float(cpu), 2)


def _logged_rows(folder: Path) -> dict[int, dict[str, float]]:
    """Columns of the logs that are kept, by environment step."""
    rows: dict[int, dict[str, float]] = {}
    with (folder / PROGRESS).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kept = {name: text for name, text in row.items() if LOGGED.fullmatch(name) or COSINE.fullmatch(name)}
            numbers = {name: float(text) for name, text in kept.items() if text}
            if numbers and row.get(STEPS):
                rows[int(float(row[STEPS]))] = numbers
    return rows


def _logs(rows: Mapping[int, Mapping[str, float]]) -> dict[str, list[float]]:
    """Columns of the logs by name, ``timesteps`` the first."""
    measured = [step for step in rows if any(not name.startswith("train/") for name in rows[step])]
    steps = sorted(measured or rows)
    steps = steps[:: math.ceil(len(steps) / LOG_POINTS)] if steps else []
    names = sorted({name for step in steps for name in rows[step] if LOGGED.fullmatch(name)})
    columns = {name: [_short(rows[step].get(name, math.nan)) for step in steps] for name in names}
    return {"timesteps": [*steps], **columns}


def _cosines(
    rows: Mapping[int, Mapping[str, float]], tasks: Sequence[str], timesteps: int
) -> dict[str, list[list[list[float]] | None]]:
    """The mean cosine of each pair of tasks in each part of training, by network."""
    places = {f"{tasks[i]}|{tasks[j]}": (i, j) for i, j in itertools.combinations(range(len(tasks)), 2)}
    cosines: dict[str, list[list[list[float]] | None]] = {}
    for network in ("critic", "actor"):
        sums = np.zeros((COSINE_PARTS, len(tasks), len(tasks)))
        counts = np.zeros_like(sums)
        for step, row in rows.items():
            part = min(COSINE_PARTS - 1, COSINE_PARTS * step // max(1, timesteps))
            for name, value in row.items():
                match = COSINE.fullmatch(name)
                if match and match[1] == network and math.isfinite(value):
                    i, j = places[match[2]]
                    sums[part, [i, j], [j, i]] += value
                    counts[part, [i, j], [j, i]] += 1
        if not counts.any():
            continue
        with np.errstate(invalid="ignore"):
            means = np.round(sums / counts, 3)
        means[:, range(len(tasks)), range(len(tasks))] = 1.0
        cosines[network] = [mean.tolist() if count.any() else None for mean, count in zip(means, counts, strict=True)]
    return cosines


def _short(number: float) -> float:
    """Five digits: enough for a figure."""
    return float(f"{number:.5g}")
