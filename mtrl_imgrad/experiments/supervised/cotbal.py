"""CoTBal's tables for a data set: K + 1 runs, their validation scores, and the weights that follow.

Dai, You, Jing, Luo, Fei, Yang, Lu, "CoTBal: Comprehensive Task Balancing for Multi-Task Visual Instruction Tuning",
2024, arXiv 2403.04343. See `mtrl_imgrad.combiners.methods.cotbal` for what the scores become.

"mini" is a share of the training images with all labels, "TASK + mini" all images with the labels of TASK, and of the
mini share with those of the others. Every run minimizes the sum of the losses. Ours, since the paper's tasks are of
language: the score of a task is its mIoU, its F1, or one over its mean absolute error (depth) or mean angle (normals).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.combiners.methods.cotbal import cotbal_weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.config_files import save_config
from mtrl_imgrad.experiments.run_folder import in_shell
from mtrl_imgrad.experiments.supervised.config import MethodConfig, SupervisedConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import RunResult, read_rows
from mtrl_imgrad.experiments.supervised.run import check_settings, train_or_resume
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import write_text
from mtrl_imgrad.reporting.tables import plain_table
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Fraction, Positive, checked


@dataclass(frozen=True)
class CoTBalTables:
    """Measurements of the K + 1 runs.

    Attributes:
        tasks: names, in the order of the tables.
        scores: what is scored, by task.
        mini: ``V_j(mini)``.
        single: row i: ``V_j(i + mini)``.
        temperature: of the weights.
        weights: K numbers of sum K.
    """

    tasks: list[str]
    scores: dict[str, str]
    mini: list[float]
    single: list[list[float]]
    temperature: float
    weights: list[float]

    def combiner_kwargs(self) -> dict[str, Any]:
        """Arguments of the combiner ``cotbal``."""
        return {"mini": self.mini, "single": self.single, "temperature": self.temperature}


@checked
def measure_cotbal(
    config: SupervisedConfig,
    folder: Path,
    *,
    mini: Fraction = 1 / 32,
    temperature: Positive = 1.0,
    console: Console | None = None,
    progress_bar: bool = True,
) -> CoTBalTables:
    """Make the runs that are missing in ``folder/runs``, and from their scores tables and weights.

    Writes ``cotbal.json`` and ``config.yaml``, the given configuration with the combiner ``cotbal`` and its tables:
    ``mtrl-imgrad supervised --config FOLDER/config.yaml`` trains with it.

    Args:
        config: data, network and training of every run; at least two tasks.
        folder: of the runs and tables.
        mini: share of the training images in "mini", above 0 and below 1; the paper's is 1/32.
        temperature: of the weights' softmaxes; 1 or 0.5 in the paper.
        console: where to print.
        progress_bar: whether to show how far it is.

    Raises:
        ArgumentError: if an argument is wrong, the folder holds other runs, or a score cannot be used.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    folder = folder.expanduser()
    tasks = load_splits(config.data, protocol=config.protocol, progress_bar=progress_bar).tasks
    if len(tasks) < 2:
        raise ArgumentError(f"tasks must be two or more for CoTBal, got {[task.name for task in tasks]}")
    runs = [_run(config, folder, mini, ()), *(_run(config, folder, mini, (task.name,)) for task in tasks)]
    for run in runs:  # all of them before the first hour is spent
        check_settings(run)
    rows = [_scores(run, train_or_resume(run, console=console, progress_bar=progress_bar), tasks) for run in runs]
    tables = CoTBalTables(
        tasks=[task.name for task in tasks],
        scores={task.name: _described(task) for task in tasks},
        mini=rows[0],
        single=rows[1:],
        temperature=temperature,
        weights=cotbal_weights(rows[0], rows[1:], temperature=temperature),
    )
    _save(config, tables, folder)
    _print(tables, folder, console)
    return tables


def _run(config: SupervisedConfig, folder: Path, mini: float, full: tuple[str, ...]) -> SupervisedConfig:
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train_fraction=mini, full_tasks=full),
        method=MethodConfig(combiner="linear_scalarization", on_nonfinite=config.method.on_nonfinite),
        run_dir=folder / "runs" / "-".join([*full, "mini", f"seed{config.seed}"]),
    )


def _scores(config: SupervisedConfig, result: RunResult, tasks: Sequence[TaskSpec]) -> list[float]:
    """Validation scores of a finished run, in the epochs that it reports."""
    assert config.run_dir is not None, "set by _run"
    rows = [row for row in read_rows(config.run_dir / "epochs.csv") if row["epoch"] in result.epochs]
    scores = []
    for task in tasks:
        metric, inverse = task.record.score, task.record.score_is_error
        value = float(np.mean([row[f"val/{task.name}/{metric}"] for row in rows]))
        own = task.name in config.data.full_tasks
        if not math.isfinite(value) or (value <= 0 and (inverse or own)):
            raise ArgumentError(
                f"{config.run_dir}: {metric} of task {task.name!r} is {value:g} in validation; CoTBal divides by it: "
                "train longer (--epochs), or with more images (--mini), in another folder"
            )
        scores.append(1 / value if inverse else value)
    return scores


def _described(task: TaskSpec) -> str:
    metric, inverse = task.record.score, task.record.score_is_error
    return f"1 / {metric}" if inverse else metric


def _save(config: SupervisedConfig, tables: CoTBalTables, folder: Path) -> None:
    write_text(folder / "cotbal.json", json.dumps(dataclasses.asdict(tables), indent=2) + "\n")
    settings = {**config.methods.get("cotbal", {}), "combiner_kwargs": tables.combiner_kwargs()}
    chosen = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, tasks=tuple(tables.tasks)),
        method=dataclasses.replace(config.method, combiner="cotbal", combiner_kwargs={}),
        methods={**config.methods, "cotbal": settings},
    )
    save_config(chosen, folder / "config.yaml", {"versions": installed_versions()})


def _print(tables: CoTBalTables, folder: Path, console: Console) -> None:
    shown = tables.tasks[:8]
    table = plain_table(["trained on", *(f"{name}\n{tables.scores[name]}" for name in shown)], edge=True)
    names = ["mini", *(f"{name} + mini" for name in tables.tasks)]
    for name, row in zip(names[: len(shown) + 1], [tables.mini, *tables.single], strict=False):
        table.add_row(name, *(f"{score:.4g}" for score in row[: len(shown)]))
    table.add_section()
    table.add_row("weight", *(f"{weight:.3f}" for weight in tables.weights[: len(shown)]))
    console.print(table)
    if len(tables.tasks) > len(shown):
        console.print(f"The first {len(shown)} of {len(tables.tasks)} tasks; all are in cotbal.json.")
    command = f"mtrl-imgrad supervised --config {in_shell(folder / 'config.yaml')}"
    console.print(escape(f"Train with them: {command}"), soft_wrap=True)
