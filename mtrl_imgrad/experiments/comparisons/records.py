"""Finished runs of agents as data: read from ``result.json``, whatever made them and wherever they lie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, CheckpointError, MissingDependencyError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.experiments.comparisons.plan import PLAN, load_comparison
from mtrl_imgrad.experiments.rl.methods import identity
from mtrl_imgrad.experiments.run_folder import RESULT

__all__ = ["RunRecord", "by_method", "load_records", "load_runs", "runs_frame", "tidy_rows"]

Against = Literal["timesteps", "wall_seconds", "cpu_seconds"]


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        method: as the comparison calls it, or the run's combiners.
        seed: of the run.
        path: of its ``result.json``.
        data: its contents, see `mtrl_imgrad.experiments.rl.result`.
    """

    method: str
    seed: int
    path: Path
    data: dict[str, Any]

    @property
    def tasks(self) -> list[str]:
        """K names."""
        return list(self.data["tasks"])

    @property
    def final(self) -> NDArray[np.float64]:
        """``[K]`` success rates after training; NaN for a task without a notion of success."""
        return _rates(self.data["final"]["successes"], self.data["final"]["episodes"])

    def history(self, against: Against = "timesteps") -> EvaluationHistory:
        """The curve, over environment steps or whole seconds of learning; an episode's success is its place only.

        Raises:
            ArgumentError: if the run has no clock.
        """
        curve = self.data["curve"]
        history = EvaluationHistory(self.tasks)
        if None in curve[against]:
            raise ArgumentError(f"{self.path} has no {against}: it was made before runs had a clock")
        for i, place in enumerate(curve[against]):
            counts, episodes = curve["successes"][i], curve["episodes"][i]
            known = np.array([count is not None for count in counts])
            hits = np.arange(episodes) < np.array([count or 0 for count in counts])[:, None]
            returns = np.repeat(np.array(curve["returns"][i], dtype=np.float64)[:, None], episodes, axis=1)
            protocol = EvaluationProtocol(timesteps=curve["timesteps"][i])
            report = SuccessReport(
                tuple(self.tasks), hits, returns, np.ones_like(hits, np.int64), has_success=known, protocol=protocol
            )
            history.append(int(place), report)
        return history


def load_records(folders: Sequence[Path]) -> list[RunRecord]:
    """All finished runs of agents below the folders: in the order of their comparisons, else by name.

    Raises:
        ArgumentError: if there is none.
        CheckpointError: if a result cannot be read.
        TaskMismatchError: if they are not all of the same tasks.
    """
    if not folders:
        raise ArgumentError("folders must be one folder or more with finished runs, got none")
    by_path: dict[Path, RunRecord] = {}
    for folder in folders:
        for path, method in _results(folder.expanduser()):
            if (record := _read(path, method)) is not None:
                by_path[path.resolve()] = record
    if not by_path:
        raise ArgumentError(f"no finished run of an agent (with a {RESULT}) in {', '.join(map(str, folders))}")
    records = _named_alike(list(by_path.values()))
    for record in records:
        if record.tasks != records[0].tasks:
            raise TaskMismatchError(
                f"{record.path} is of the tasks {record.tasks}, {records[0].path} of {records[0].tasks}"
            )
    return records


def load_runs(*folders: str | Path) -> list[dict[str, Any]]:
    """All evaluations of all finished runs below the folders, tidy: a dict a task and evaluation.

    Keys: ``method``, ``seed``, ``task``, ``timesteps``, ``wall_seconds``, ``cpu_seconds``, ``episodes``, ``success`` (a
    rate, None for a task without a notion of it), ``mean_return``, ``final`` (whether it is the one after training).
    `runs_frame` gives the same as a pandas data frame.

    Raises:
        ArgumentError: if there is no finished run.
        CheckpointError: if a result cannot be read.
        TaskMismatchError: if the runs are not all of the same tasks.
    """
    return tidy_rows(load_records([Path(folder) for folder in folders]))


def tidy_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The rows of `load_runs`."""
    rows = []
    for record in records:
        curve = record.data["curve"]
        for i in range(len(curve["timesteps"])):
            for k, task in enumerate(record.tasks):
                count = curve["successes"][i][k]
                rows.append(
                    {
                        "method": record.method,
                        "seed": record.seed,
                        "task": task,
                        **{name: curve[name][i] for name in ("timesteps", "wall_seconds", "cpu_seconds", "episodes")},
                        "success": None if count is None else count / curve["episodes"][i],
                        "mean_return": curve["returns"][i][k],
                        "final": i == len(curve["timesteps"]) - 1,
                    }
                )
    return rows


def runs_frame(*folders: str | Path) -> Any:
    """`load_runs` as a pandas data frame.

    Raises:
        MissingDependencyError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError("a data frame needs pandas: pip install pandas, or use load_runs") from error
    return pd.DataFrame(load_runs(*folders))


def by_method(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each method, by seed."""
    methods: dict[str, list[RunRecord]] = {}
    for record in records:
        methods.setdefault(record.method, []).append(record)
    return {method: sorted(runs, key=lambda run: run.seed) for method, runs in methods.items()}


def _results(folder: Path) -> list[tuple[Path, str | None]]:
    """The results below a folder, each with its method's name where the comparison is known."""
    if not (folder / PLAN).exists():
        return [(path, None) for path in sorted(folder.rglob(RESULT))]
    planned = [(run.folder / RESULT, run.method) for run in load_comparison(folder).runs()]
    return [(path, method) for path, method in planned if path.exists()]


def _read(path: Path, method: str | None) -> RunRecord | None:
    """None for another kind of run; without a name it is called by its combiners."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("kind") != "rl":
            return None
        record = RunRecord(method or data["method"], int(data["seed"]), path, data)
        record.history()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a result ({error})") from error
    return record


def _named_alike(records: Sequence[RunRecord]) -> list[RunRecord]:
    """With one name for the same combiners: the first."""
    names: dict[str, str] = {}
    known: list[tuple[object, str]] = []
    for method in dict.fromkeys(record.method for record in records):
        try:
            own = identity(method)
        except ArgumentError:
            continue  # of another version: it stands for itself
        names[method] = next((name for other, name in known if other == own), method)
        known.append((own, method))
    return [dataclasses.replace(record, method=names.get(record.method, record.method)) for record in records]


def _rates(counts: Sequence[int | None], episodes: int) -> NDArray[np.float64]:
    return np.array([np.nan if count is None else count / episodes for count in counts])
