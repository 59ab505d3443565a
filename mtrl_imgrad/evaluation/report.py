"""The report of one evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.files import EPISODES, PathLike, load_npz, save_npz, with_suffix
from mtrl_imgrad.evaluation.protocol import UNKNOWN, EvaluationProtocol, read_protocol
from mtrl_imgrad.evaluation.report_table import report_html, report_table
from mtrl_imgrad.evaluation.statistics import Confidence, Interval, as_array, success_interval, wilson_interval
from mtrl_imgrad.reporting.atomic_files import write_whole
from mtrl_imgrad.reporting.json_numbers import null_for_nan
from mtrl_imgrad.reporting.tables import render_text
from mtrl_imgrad.validation import checked


@checked
@dataclass(frozen=True, eq=False)
class SuccessReport:
    """An evaluation: n episodes of each of K tasks. ``print(report)`` shows a table.

    The intervals are over episodes of this agent, not over seeds.

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
    confidence: Confidence = 0.95
    has_success: NDArray[np.bool_] | None = None
    protocol: EvaluationProtocol = UNKNOWN

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
                "success_rate": self.success_rate[k],
                "interval": None if np.isnan(self.intervals[k, 0]) else self.intervals[k].tolist(),
                "mean_return": float(self.returns[k].mean()),
                "mean_length": float(self.lengths[k].mean()),
            }
            for k, name in enumerate(self.task_names)
        }
        summary = {
            "mean_success": self.mean_success,
            "mean_interval": None if np.isnan(self.mean_interval.low) else list(self.mean_interval),
            "confidence": self.confidence,
            "episodes_per_task": self.num_episodes,
            **asdict(self.protocol),
            "mean_return": float(self.returns.mean()),
            "mean_length": float(self.lengths.mean()),
            "tasks": tasks,
        }
        return json.dumps(null_for_nan(summary), indent=2, allow_nan=False)

    @checked
    def save(self, path: PathLike) -> Path:
        """Write every episode to ``<path>.npz`` (no pickle) and the summary to ``<path>.json`` beside it.

        Args:
            path: with or without the suffix ``.npz``; folders are made.

        Returns:
            The path of the npz file.
        """
        target = with_suffix(path, ".npz")
        arrays = {name: getattr(self, name) for name in (*EPISODES, "has_success")}
        names, protocol = np.array(self.task_names), np.array(self.protocol.to_json())
        summary = self.to_json().encode() + b"\n"
        write_whole(with_suffix(path, ".json"), lambda file: file.write(summary))
        # Last: where this file is, both are.
        save_npz(target, task_names=names, confidence=self.confidence, protocol=protocol, **arrays)
        return target

    @classmethod
    @checked
    def load(cls, path: PathLike) -> SuccessReport:
        """Read what `save` wrote. Never runs code from the file.

        Raises:
            CheckpointError: if the file is damaged or lacks a member; names both.
        """
        members = load_npz(
            with_suffix(path, ".npz"), ("task_names", *EPISODES, "confidence"), ("has_success", "protocol")
        )
        arrays = {name: members[name] for name in EPISODES}
        return cls(
            tuple(members["task_names"]),
            **arrays,
            confidence=float(members["confidence"]),
            has_success=members.get("has_success"),
            protocol=read_protocol(members.get("protocol")),
        )

    def __str__(self) -> str:
        return render_text(report_table(self, None, width=80), width=80)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return report_html(self)
