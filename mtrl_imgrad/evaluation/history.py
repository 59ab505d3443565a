"""The reports of a whole training, in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation.files import EPISODES, PathLike, load_npz, save_npz, with_suffix
from mtrl_imgrad.evaluation.protocol import read_protocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.statistics import Confidence
from mtrl_imgrad.validation import checked


@checked
class EvaluationHistory:
    """The reports of one training, in order of time: what ``evaluations.npz`` holds and curves are made of.

    Args:
        task_names: K names.
        confidence: two-sided level of the intervals.
    """

    def __init__(self, task_names: Sequence[str], confidence: Confidence = 0.95) -> None:
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
            TaskMismatchError: if the report is of other tasks, or other tasks have a notion of success.
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
        target = with_suffix(path, ".npz")
        empty = np.zeros((len(self.task_names), 0))
        stacks = {
            name: np.concatenate([empty.astype(dtype), *(getattr(report, name) for report in self.reports)], axis=1)
            for name, dtype in (("successes", np.bool_), ("returns", np.float64), ("lengths", np.int64))
        }
        save_npz(
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
        path = with_suffix(path, ".npz")
        optional = ("num_episodes", "has_success", "protocol")
        members = load_npz(path, ("timesteps", "confidence", "task_names", *EPISODES), optional)
        history = cls(members["task_names"].tolist(), float(members["confidence"]))
        timesteps = members["timesteps"].tolist()
        parts = {name: _split(path, name, members) for name in EPISODES}
        protocols = members.get("protocol", [None] * len(timesteps))
        for i, (when, protocol) in enumerate(zip(timesteps, protocols, strict=True)):
            arrays = {name: values[i] for name, values in parts.items()}
            known, how = members.get("has_success"), read_protocol(protocol)
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
