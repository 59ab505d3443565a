"""Per-task success of an agent: run the episodes, report them, keep the reports of a whole training.

The protocol is Meta-World's: an episode counts as a success if *any* of its steps was one. Agents are
compared by success, never by reward: where episodes end at success, a better policy earns a lower return.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from mtrl_imgrad.errors import (
    ArgumentError,
    CheckpointError,
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
)
from mtrl_imgrad.evaluation.statistics import Interval, success_interval, wilson_interval

__all__ = ["EvaluationHistory", "SuccessReport", "check_evaluation_env", "evaluate_success"]

PathLike = str | os.PathLike[str]


class Predictor(Protocol):
    """What can be evaluated: SB3's algorithms and policies, and whatever predicts like them."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]:
        """Actions ``[num_envs, A]`` for observations ``[num_envs, D]``, and a state that is ignored."""


def evaluate_success(
    agent: Predictor,
    env: VecEnv,
    n_episodes: int = 50,
    deterministic: bool = True,
    confidence: float = 0.95,
    progress_bar: bool = False,
) -> SuccessReport:
    """Run ``n_episodes`` episodes of every task and report what came of them.

    A task's episodes are shared out to its copies in the environment *before* the run. Taking the first
    ``n_episodes`` to finish instead would count short episodes more often than they happen, and where
    episodes end at success these are the good ones.

    The global torch generators are left as they were found, so evaluating in the middle of a training does
    not change it, stochastic actions included.

    Args:
        agent: anything with SB3's ``predict``.
        env: a multi-task vector environment (``task_names``, ``task_ids``) of its own, not the training one.
        n_episodes: episodes for each task.
        deterministic: act by the mean of the policy instead of sampling from it.
        confidence: two-sided level of the report's intervals.
        progress_bar: show a bar of finished episodes.

    Returns:
        `SuccessReport`; episodes in the order of the copies, then of time.

    Raises:
        ArgumentError: if an argument is out of range, the environment is not a multi-task one, or is the one
            the agent trains in.
        TaskMismatchError: if the agent was made for other tasks, the same in another order, or for other
            observations.
        NonFiniteError: if the agent acts with a NaN or an infinity; names task and step.
        EnvironmentFaultError: if an episode never tells of success, returns a NaN or outlasts the horizon.
    """
    if n_episodes < 1:
        raise ArgumentError(f"n_episodes must be at least 1, got {n_episodes!r}")
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must lie strictly between 0 and 1, got {confidence!r}")
    check_evaluation_env(agent, env)
    tally = _Tally(env, n_episodes)
    with _generators_untouched(agent), _episode_bar(tally.quota.sum(), progress_bar) as advance:
        observations = env.reset()
        while not tally.complete:
            actions, _ = agent.predict(observations, deterministic=deterministic)
            tally.check_actions(actions, observations)
            observations, rewards, dones, infos = env.step(actions)
            advance(tally.add(rewards, dones, infos))
    return tally.report(confidence)


def check_evaluation_env(agent: object, env: VecEnv) -> None:
    """Refuse an environment that ``agent`` must not be evaluated in.

    Raises:
        ArgumentError: if it has no tasks, a task without a copy, or is the environment the agent trains in.
        TaskMismatchError: if the agent was made for other tasks, the same in another order, or for other
            observations.
    """
    names = list(getattr(env, "task_names", []))
    ids = np.asarray(getattr(env, "task_ids", []))
    if not names or ids.shape != (env.num_envs,) or set(ids.tolist()) != set(range(len(names))):
        raise ArgumentError(
            "env must be a multi-task vector environment with task_names, and task_ids that give each of its "
            f"{env.num_envs} environments a task, each task an environment; got {names}, {ids.tolist()}"
        )
    training = agent.get_env() if hasattr(agent, "get_env") else None
    if training is not None and _innermost(training) is _innermost(env):
        raise ArgumentError(
            "env is the environment the agent trains in: evaluating there would cut its running episodes off "
            "and use up its goals. Make a second one, with another seed"
        )
    expected = getattr(agent, "task_names", None)
    if expected is not None and list(expected) != names:
        hint = " (the same tasks in another order)" if sorted(expected) == sorted(names) else ""
        raise TaskMismatchError(f"the agent was made for {list(expected)}, env has {names}{hint}")
    space = getattr(agent, "observation_space", None)
    if space is not None and space.shape != env.observation_space.shape:
        raise TaskMismatchError(
            f"the agent was made for observations of shape {space.shape}, env gives "
            f"{env.observation_space.shape}: another number of tasks, or with and without their one-hot?"
        )


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
        shape = (len(self.task_names), self.num_episodes)
        for name, dtype in (("successes", np.bool_), ("returns", np.float64), ("lengths", np.int64)):
            array = np.array(getattr(self, name), dtype)
            if array.shape != shape or not array.size:
                raise ArgumentError(f"{name} must be [tasks, episodes], here {shape}, got {array.shape}")
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
        _write_atomically(_with_suffix(path, ".json"), lambda file: file.write(summary))
        return target

    @classmethod
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

    def until(self, timesteps: int) -> EvaluationHistory:
        """The part made at or before ``timesteps``."""
        part = EvaluationHistory(self.task_names, self.confidence)
        for when, report in zip(self._timesteps, self.reports, strict=True):
            if when <= timesteps:
                part.append(when, report)
        return part

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


class _Tally:
    """Counts the episodes of a run against the quota of each environment copy."""

    def __init__(self, env: Any, n_episodes: int) -> None:
        self.task_names: list[str] = list(env.task_names)
        self.task_ids = np.asarray(env.task_ids)
        self.horizon: int | None = getattr(env, "horizon", None)
        self.quota = np.zeros(env.num_envs, np.int64)
        for task in range(len(self.task_names)):
            copies = np.flatnonzero(self.task_ids == task)
            self.quota[copies] = [(n_episodes + i) // len(copies) for i in range(len(copies))]
        self.episodes: list[list[tuple[bool, float, int]]] = [[] for _ in self.quota]
        self.step = 0
        self.length = np.zeros(env.num_envs, np.int64)
        self.total = np.zeros(env.num_envs)
        self.success = np.zeros(env.num_envs, bool)
        self.informed = np.zeros(env.num_envs, bool)

    @property
    def complete(self) -> bool:
        return all(len(found) >= quota for found, quota in zip(self.episodes, self.quota, strict=True))

    def check_actions(self, actions: Any, observations: Any) -> None:
        bad = ~np.isfinite(np.asarray(actions)).reshape(len(self.quota), -1).all(axis=1)
        if not bad.any():
            return
        i = int(np.flatnonzero(bad)[0])
        sound = isinstance(observations, np.ndarray) and np.isfinite(observations[i]).all()
        cause = "its observation was finite" if sound else "its observation was not all finite numbers"
        raise NonFiniteError(
            f"the agent's action is NaN or infinite on {self._where(i)}, after {self.step} steps of the "
            f"evaluation; {cause}. Action: {np.asarray(actions)[i]}"
        )

    def add(self, rewards: NDArray[Any], dones: NDArray[Any], infos: Sequence[dict[str, Any]]) -> int:
        """Take in one step of all copies; returns the number of episodes counted."""
        self.step += 1
        self.length += 1
        self.total += rewards
        for i, info in enumerate(infos):
            for key in ("is_success", "success"):
                if key in info:
                    self.informed[i] = True
                    self.success[i] |= bool(info[key] > 0)
        if self.horizon is not None and (self.length > self.horizon).any():
            i = int(self.length.argmax())
            raise EnvironmentFaultError(f"{self._where(i)}: no end of the episode after {self.horizon} steps")
        return sum(self._finish(i, infos[i]) for i in np.flatnonzero(dones).tolist())

    def _finish(self, i: int, info: dict[str, Any]) -> bool:
        """Take in the end of an episode; returns whether it counts."""
        monitored = info.get("episode", {})
        total = float(monitored.get("r", self.total[i]))
        episode = bool(self.success[i]), total, int(monitored.get("l", self.length[i]))
        if not self.informed[i]:
            raise EnvironmentFaultError(f"{self._where(i)}: no info held 'is_success' or 'success'")
        if not np.isfinite(total):
            raise EnvironmentFaultError(f"{self._where(i)}: the episode's return is {total}")
        self.length[i], self.total[i], self.success[i], self.informed[i] = 0, 0.0, False, False
        if len(self.episodes[i]) >= self.quota[i]:
            return False  # a surplus episode, run only because other copies were not done
        self.episodes[i].append(episode)
        return True

    def _where(self, i: int) -> str:
        name = self.task_names[self.task_ids[i]]
        return f"task {name!r} (environment {i}) at step {self.length[i]} of its episode"

    def report(self, confidence: float) -> SuccessReport:
        by_task = [
            [episode for i in np.flatnonzero(self.task_ids == task) for episode in self.episodes[i]]
            for task in range(len(self.task_names))
        ]
        successes, returns, lengths = (
            np.array([[episode[part] for episode in row] for row in by_task]) for part in range(3)
        )
        return SuccessReport(tuple(self.task_names), successes, returns, lengths, confidence)


def _innermost(env: VecEnv) -> VecEnv:
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env


@contextmanager
def _generators_untouched(agent: object) -> Iterator[None]:
    device = torch.device(getattr(agent, "device", "cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def _episode_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda _: None
        return
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        task = progress.add_task("episodes", total=int(total))
        yield lambda count: progress.advance(task, count)


def _with_suffix(path: PathLike, suffix: str) -> Path:
    # Not Path.with_suffix, which would make "run" of "run.1".
    path = Path(path)
    stem = path.name.removesuffix(".npz").removesuffix(".json")
    return path.with_name(stem + suffix)


def _write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Write beside ``path``, then rename: readers, and crashes, find the old file or the new one, no half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save_npz(path: Path, **arrays: Any) -> None:
    _write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


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
