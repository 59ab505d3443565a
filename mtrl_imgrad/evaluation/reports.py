"""What evaluations found: one report, or the reports of a whole training; their files hold no pickle.

Files are written beside their target and renamed, so that a crash leaves the old file or the new one, never a half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.checked import checked
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.statistics import Interval, as_array, success_interval, wilson_interval
from mtrl_imgrad.files import write_atomically

__all__ = ["EvaluationHistory", "SuccessReport"]

PathLike = str | os.PathLike[str]


@checked
@dataclass(frozen=True, eq=False)
class SuccessReport:
    """What an agent did in n episodes of each of K tasks. ``print(report)`` shows a table.

    The intervals speak of this agent: of the episodes it might have had, not of other seeds.

    Attributes:
        task_names: K names.
        successes: ``[K, n]`` bool, whether any step of the episode was a success.
        returns: ``[K, n]`` sum of the rewards, not discounted.
        lengths: ``[K, n]`` steps.
        confidence: two-sided level of the intervals.
    """

    task_names: tuple[str, ...]
    successes: NDArray[np.bool_]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    confidence: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_names", tuple(map(str, self.task_names)))
        if np.asarray(self.successes).dtype != np.bool_:
            raise ArgumentError(f"successes must be bool, got {np.asarray(self.successes).dtype}")
        if not self.task_names:
            raise ArgumentError("task_names must name at least one task, got none")
        shape = (len(self.task_names), self.num_episodes)
        for name, dtype in (("successes", np.bool_), ("returns", np.float64), ("lengths", np.int64)):
            array = np.array(as_array(name, getattr(self, name), dtype))
            if array.shape != shape or not array.size:
                raise ArgumentError(
                    f"{name} must be [tasks, episodes], {shape} for these task_names, got {array.shape}"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def num_episodes(self) -> int:
        """Episodes of each task, n."""
        return int(np.shape(self.successes)[-1]) if np.ndim(self.successes) else 0

    @property
    def success_rate(self) -> NDArray[np.float64]:
        """``[K]`` success rates."""
        return self.successes.mean(axis=1)

    @property
    def intervals(self) -> NDArray[np.float64]:
        """``[K, 2]`` Wilson intervals of the success rates."""
        return wilson_interval(self.successes.sum(axis=1), self.num_episodes, self.confidence)

    @property
    def mean_success(self) -> float:
        """Mean of the success rates."""
        return float(self.successes.mean())

    @property
    def mean_interval(self) -> Interval:
        """Stratified bootstrap interval of `mean_success`, see `success_interval`."""
        return success_interval(self.successes, self.confidence)

    def to_json(self) -> str:
        """The summary (no single episodes) as JSON; an interval that one episode cannot give is null."""
        low, high = self.mean_interval
        tasks = {
            name: {
                "success_rate": float(self.success_rate[k]),
                "interval": self.intervals[k].tolist(),
                "mean_return": float(self.returns[k].mean()),
                "mean_length": float(self.lengths[k].mean()),
            }
            for k, name in enumerate(self.task_names)
        }
        summary = {
            "mean_success": self.mean_success,
            "mean_interval": None if np.isnan(low) else [low, high],
            "confidence": self.confidence,
            "episodes_per_task": self.num_episodes,
            "mean_return": float(self.returns.mean()),
            "mean_length": float(self.lengths.mean()),
            "tasks": tasks,
        }
        return json.dumps(summary, indent=2, allow_nan=False)

    @checked
    def save(self, path: PathLike) -> Path:
        """Write every episode to ``<path>.npz`` (no pickle) and the summary to ``<path>.json`` beside it.

        Args:
            path: with or without the suffix ``.npz``; folders are made.

        Returns:
            The path of the npz file.
        """
        target = _with_suffix(path, ".npz")
        arrays = {name: getattr(self, name) for name in _MEMBERS[1:]}
        _save_npz(target, task_names=np.array(self.task_names), confidence=self.confidence, **arrays)
        summary = self.to_json().encode() + b"\n"
        _write_whole(_with_suffix(path, ".json"), lambda file: file.write(summary))
        return target

    @classmethod
    @checked
    def load(cls, path: PathLike) -> SuccessReport:
        """Read what `save` wrote. Never runs code from the file.

        Raises:
            CheckpointError: if the file is damaged or lacks a member; names both.
        """
        members = _load_npz(_with_suffix(path, ".npz"), (*_MEMBERS, "confidence"))
        arrays = {name: members[name] for name in _MEMBERS[1:]}
        return cls(tuple(members["task_names"]), **arrays, confidence=float(members["confidence"]))

    def __str__(self) -> str:
        from mtrl_imgrad.evaluation.tables import render_text, success_table

        return render_text(success_table(self, width=80), width=80)


_MEMBERS = ("task_names", "successes", "returns", "lengths")


@checked
class EvaluationHistory:
    """The reports of one training, in order of time: what ``evaluations.npz`` holds and curves are made of.

    Args:
        task_names: K names.
        confidence: two-sided level of the intervals.
    """

    def __init__(self, task_names: Sequence[str], confidence: float = 0.95) -> None:
        self.task_names = tuple(map(str, task_names))
        self.confidence = confidence
        self.reports: list[SuccessReport] = []
        self._timesteps: list[int] = []

    def __len__(self) -> int:
        return len(self.reports)

    @checked
    def append(self, timesteps: int, report: SuccessReport) -> None:
        """Add the report made after ``timesteps`` environment steps.

        Raises:
            TaskMismatchError: if the report speaks of other tasks.
            ArgumentError: if it has another number of episodes, or is not later than the last one.
        """
        if report.task_names != self.task_names:
            raise TaskMismatchError(f"the history is of {self.task_names}, the report of {report.task_names}")
        if self.reports and report.num_episodes != self.reports[0].num_episodes:
            raise ArgumentError(
                f"reports must have {self.reports[0].num_episodes} episodes a task, got {report.num_episodes}"
            )
        if self._timesteps and timesteps <= self._timesteps[-1]:
            raise ArgumentError(f"timesteps must rise, got {timesteps} after {self._timesteps[-1]}")
        self._timesteps.append(int(timesteps))
        self.reports.append(report)

    @property
    def timesteps(self) -> NDArray[np.int64]:
        """``[E]`` environment steps, over all copies together, before each evaluation."""
        return np.array(self._timesteps, np.int64)

    @property
    def successes(self) -> NDArray[np.bool_]:
        """``[E, K, n]`` whether an episode was a success."""
        return self._stack("successes", np.bool_)

    @property
    def success_rate(self) -> NDArray[np.float64]:
        """``[E, K]`` success rates."""
        return np.array([r.success_rate for r in self.reports]).reshape(len(self), len(self.task_names))

    @property
    def mean_success(self) -> NDArray[np.float64]:
        """``[E]`` mean success over tasks."""
        return np.array([r.mean_success for r in self.reports])

    @property
    def mean_intervals(self) -> NDArray[np.float64]:
        """``[E, 2]`` stratified bootstrap intervals of `mean_success`."""
        return np.array([r.mean_interval for r in self.reports]).reshape(-1, 2)

    @checked
    def until(self, timesteps: int) -> EvaluationHistory:
        """The part made at or before ``timesteps``."""
        part = EvaluationHistory(self.task_names, self.confidence)
        for when, report in zip(self._timesteps, self.reports, strict=True):
            if when <= timesteps:
                part.append(when, report)
        return part

    @checked
    def save(self, path: PathLike) -> Path:
        """Write all episodes of all evaluations to ``<path>.npz``: no pickle, all or nothing.

        Returns:
            The path of the file.
        """
        target = _with_suffix(path, ".npz")
        stacks = {
            name: self._stack(name, dtype)
            for name, dtype in (("successes", np.bool_), ("returns", np.float64), ("lengths", np.int64))
        }
        names = np.array(self.task_names)
        _save_npz(target, timesteps=self.timesteps, task_names=names, confidence=self.confidence, **stacks)
        return target

    @classmethod
    @checked
    def load(cls, path: PathLike) -> EvaluationHistory:
        """Read what `save` wrote. Never runs code from the file.

        Raises:
            CheckpointError: if the file is damaged or lacks a member; names both.
        """
        members = _load_npz(_with_suffix(path, ".npz"), ("timesteps", "confidence", *_MEMBERS))
        history = cls(members["task_names"].tolist(), float(members["confidence"]))
        for i, when in enumerate(members["timesteps"].tolist()):
            arrays = {name: members[name][i] for name in _MEMBERS[1:]}
            history.append(when, SuccessReport(history.task_names, **arrays, confidence=history.confidence))
        return history

    def _stack(self, name: str, dtype: type) -> NDArray[Any]:
        if not self.reports:
            return np.zeros((0, len(self.task_names), 0), dtype)
        return np.stack([getattr(report, name) for report in self.reports])


def _with_suffix(path: PathLike, suffix: str) -> Path:
    # Not Path.with_suffix, which would make "run" of "run.1".
    path = Path(path)
    stem = path.name.removesuffix(".npz").removesuffix(".json")
    return path.with_name(stem + suffix)


def _write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def _save_npz(path: Path, **arrays: Any) -> None:
    _write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def _load_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:  # here, for numpy leaves a damaged file open
        try:
            with np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in names if name in archive}
        except Exception as error:  # what zip, zlib and numpy raise for damaged bytes has no common base
            raise CheckpointError(f"{path} is no readable file of evaluations: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; it holds {list(found)}")
    return found
