"""What evaluations found: one report, or the reports of a whole training; their files hold no pickle.

Files are written beside their target and renamed, so that a crash leaves the old file or the new one, never a half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.statistics import Interval, as_array, success_interval, wilson_interval
from mtrl_imgrad.reporting.atomic_files import write_atomically
from mtrl_imgrad.validation import checked

__all__ = ["EvaluationHistory", "SuccessReport"]

PathLike = str | os.PathLike[str]


_UNKNOWN = EvaluationProtocol()


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
        has_success: ``[K]`` bool, whether the task says what a success is; None for all. Where it does not, the
            rate and its interval are NaN, the mean leaves the task out, and tables show "-".
        protocol: how the episodes were run.
    """

    task_names: tuple[str, ...]
    successes: NDArray[np.bool_]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    confidence: float = 0.95
    has_success: NDArray[np.bool_] | None = None
    protocol: EvaluationProtocol = _UNKNOWN

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
            self._set(name, array)
        known = np.ones(len(self.task_names), np.bool_) if self.has_success is None else np.array(self.has_success)
        if known.shape != shape[:1] or known.dtype != np.bool_:
            raise ArgumentError(f"has_success must be bool [tasks], {shape[:1]}, got {known.dtype} {known.shape}")
        if self.successes[~known].any():
            name = self.task_names[int(np.flatnonzero(self.successes.any(axis=1) & ~known)[0])]
            raise ArgumentError(f"has_success is False for task {name!r}, which has successes")
        self._set("has_success", known)

    def _set(self, name: str, array: NDArray[Any]) -> None:
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    @property
    def num_episodes(self) -> int:
        """Episodes of each task, n."""
        return int(np.shape(self.successes)[-1]) if np.ndim(self.successes) else 0

    @property
    def success_rate(self) -> NDArray[np.float64]:
        """``[K]`` success rates; NaN for a task without a notion of success."""
        return np.where(self._known, self.successes.mean(axis=1), np.nan)

    @property
    def intervals(self) -> NDArray[np.float64]:
        """``[K, 2]`` Wilson intervals of the success rates; NaN for a task without a notion of success."""
        ends = wilson_interval(self.successes.sum(axis=1), self.num_episodes, self.confidence)
        ends[~self._known] = np.nan
        return ends

    @property
    def mean_success(self) -> float:
        """Mean of the success rates of the tasks that have one; NaN if none has."""
        return float(self.successes[self._known].mean()) if self._known.any() else float("nan")

    @property
    def mean_interval(self) -> Interval:
        """Interval of `mean_success` over episodes, see `success_interval`; NaN if no task has a success rate."""
        if not self._known.any():
            return Interval(np.nan, np.nan)
        return success_interval(self.successes[self._known], self.confidence)

    @property
    def _known(self) -> NDArray[np.bool_]:
        assert self.has_success is not None
        return self.has_success

    def to_json(self) -> str:
        """The summary (no single episodes) as JSON; what a task without a notion of success lacks is null."""
        tasks = {
            name: {
                "success_rate": _or_none(self.success_rate[k]),
                "interval": None if np.isnan(self.intervals[k, 0]) else self.intervals[k].tolist(),
                "mean_return": float(self.returns[k].mean()),
                "mean_length": float(self.lengths[k].mean()),
            }
            for k, name in enumerate(self.task_names)
        }
        summary = {
            "mean_success": _or_none(self.mean_success),
            "mean_interval": None if np.isnan(self.mean_interval.low) else list(self.mean_interval),
            "confidence": self.confidence,
            "episodes_per_task": self.num_episodes,
            **asdict(self.protocol),
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
        arrays = {name: getattr(self, name) for name in (*_MEMBERS[1:], "has_success")}
        names, protocol = np.array(self.task_names), np.array(self.protocol.to_json())
        summary = self.to_json().encode() + b"\n"
        _write_whole(_with_suffix(path, ".json"), lambda file: file.write(summary))
        # Last: where this file is, both are.
        _save_npz(target, task_names=names, confidence=self.confidence, protocol=protocol, **arrays)
        return target

    @classmethod
    @checked
    def load(cls, path: PathLike) -> SuccessReport:
        """Read what `save` wrote. Never runs code from the file.

        Raises:
            CheckpointError: if the file is damaged or lacks a member; names both.
        """
        members = _load_npz(_with_suffix(path, ".npz"), (*_MEMBERS, "confidence"), ("has_success", "protocol"))
        arrays = {name: members[name] for name in _MEMBERS[1:]}
        return cls(
            tuple(members["task_names"]),
            **arrays,
            confidence=float(members["confidence"]),
            has_success=members.get("has_success"),
            protocol=_protocol(members.get("protocol")),
        )

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

        Reports may have different numbers of episodes: the last one of a run usually has more. It may also be of
        the same step as the one before.

        Raises:
            TaskMismatchError: if the report speaks of other tasks, or other tasks have a notion of success.
            ArgumentError: if it is earlier than the last one.
        """
        if report.task_names != self.task_names:
            raise TaskMismatchError(f"the history is of {self.task_names}, the report of {report.task_names}")
        if self.reports and not np.array_equal(report.has_success, self.reports[0].has_success):  # type: ignore[arg-type]
            raise TaskMismatchError(
                f"reports must agree on which tasks have a notion of success: {self.reports[0].has_success} before, "
                f"now {report.has_success}"
            )
        if self._timesteps and timesteps < self._timesteps[-1]:
            raise ArgumentError(f"timesteps must not fall, got {timesteps} after {self._timesteps[-1]}")
        self._timesteps.append(int(timesteps))
        self.reports.append(report)

    @property
    def timesteps(self) -> NDArray[np.int64]:
        """``[E]`` environment steps, over all copies together, before each evaluation."""
        return np.array(self._timesteps, np.int64)

    @property
    def num_episodes(self) -> NDArray[np.int64]:
        """``[E]`` episodes of each task."""
        return np.array([report.num_episodes for report in self.reports], np.int64)

    @property
    def success_rate(self) -> NDArray[np.float64]:
        """``[E, K]`` success rates; NaN for a task without a notion of success."""
        return np.array([r.success_rate for r in self.reports]).reshape(len(self), len(self.task_names))

    @property
    def mean_success(self) -> NDArray[np.float64]:
        """``[E]`` mean success over the tasks that have a notion of it; NaN if none has."""
        return np.array([r.mean_success for r in self.reports])

    @property
    def normalized_returns(self) -> NDArray[np.float64]:
        """``[E, K]`` mean returns, from 0, a task's lowest evaluation, to 1, its highest; 0 if all are equal."""
        returns = np.array([r.returns.mean(axis=1) for r in self.reports]).reshape(len(self), len(self.task_names))
        if not len(self):
            return returns
        low, spread = returns.min(axis=0), np.ptp(returns, axis=0)
        return (returns - low) / np.where(spread > 0, spread, 1.0)

    @property
    def scores(self) -> NDArray[np.float64]:
        """``[E]`` what a best evaluation is chosen by, in [0, 1].

        Mean over tasks of the success rate, or of the normalized return where a task has no notion of success.
        """
        if not np.isnan(self.success_rate).any():
            return self.mean_success
        return np.where(np.isnan(self.success_rate), self.normalized_returns, self.success_rate).mean(axis=1)

    @property
    def mean_intervals(self) -> NDArray[np.float64]:
        """``[E, 2]`` intervals of `mean_success` over episodes, see `success_interval`."""
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

        ``successes``, ``returns`` and ``lengths`` are ``[K, sum of num_episodes]``, one evaluation after the other;
        ``num_episodes``, ``timesteps`` and ``protocol`` (JSON) have an entry for each.

        Returns:
            The path of the file.
        """
        target = _with_suffix(path, ".npz")
        empty = np.zeros((len(self.task_names), 0))
        stacks = {
            name: np.concatenate([empty.astype(dtype), *(getattr(report, name) for report in self.reports)], axis=1)
            for name, dtype in (("successes", np.bool_), ("returns", np.float64), ("lengths", np.int64))
        }
        _save_npz(
            target,
            timesteps=self.timesteps,
            num_episodes=self.num_episodes,
            task_names=np.array(self.task_names),
            confidence=self.confidence,
            has_success=self.reports[0].has_success if self.reports else np.ones(len(self.task_names), np.bool_),
            protocol=np.array([report.protocol.to_json() for report in self.reports], np.str_),
            **stacks,
        )
        return target

    @classmethod
    @checked
    def load(cls, path: PathLike) -> EvaluationHistory:
        """Read what `save` wrote, or 0.1.0, which had ``[E, K, n]``. Never runs code from the file.

        Raises:
            CheckpointError: if the file is damaged or lacks a member; names both.
        """
        path = _with_suffix(path, ".npz")
        optional = ("num_episodes", "has_success", "protocol")
        members = _load_npz(path, ("timesteps", "confidence", *_MEMBERS), optional)
        history = cls(members["task_names"].tolist(), float(members["confidence"]))
        timesteps = members["timesteps"].tolist()
        parts = {name: _split(path, name, members) for name in _MEMBERS[1:]}
        protocols = members.get("protocol", [None] * len(timesteps))
        for i, (when, protocol) in enumerate(zip(timesteps, protocols, strict=True)):
            arrays = {name: values[i] for name, values in parts.items()}
            known, how = members.get("has_success"), _protocol(protocol)
            report = SuccessReport(
                history.task_names, **arrays, confidence=history.confidence, has_success=known, protocol=how
            )
            history.append(when, report)
        return history


def _split(path: Path, name: str, members: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """A member as ``[K, n]`` for each evaluation."""
    values = members[name]
    if values.ndim == 3:
        return list(values)
    counts = members.get("num_episodes", np.zeros(0, np.int64))
    if counts.shape != members["timesteps"].shape or values.shape[-1:] != (counts.sum(),):
        raise CheckpointError(f"{path}: {name} has shape {values.shape}, which does not fit num_episodes {counts}")
    return np.split(values, np.cumsum(counts)[:-1], axis=1) if len(counts) else []


def _protocol(text: Any) -> EvaluationProtocol:
    return _UNKNOWN if text is None else EvaluationProtocol.from_json(str(text))


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


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


def _load_npz(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:  # here, for numpy leaves a damaged file open
        try:
            with np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in (*names, *optional) if name in archive}
        except Exception as error:  # what zip, zlib and numpy raise for damaged bytes has no common base
            raise CheckpointError(f"{path} is no readable file of evaluations: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; it holds {list(found)}")
    return found
