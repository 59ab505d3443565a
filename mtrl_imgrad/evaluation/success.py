"""Per-task success of an agent: run the episodes and report them.

The protocol is Meta-World's: an episode counts as a success if *any* of its steps was one. Agents are
compared by success, never by reward: where episodes end at success, a better policy earns a lower return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from mtrl_imgrad.envs.success import KnownSuccess, success_of
from mtrl_imgrad.errors import (
    ArgumentError,
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
)
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.statistics import Confidence
from mtrl_imgrad.reporting.progress import counting_bar
from mtrl_imgrad.seeding import fresh_seed
from mtrl_imgrad.validation import Count, Seed, checked


class Predictor(Protocol):
    """What can be evaluated: SB3's algorithms and policies, and whatever predicts like them."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]:
        """Actions ``[num_envs, A]`` for observations ``[num_envs, D]``, and a state that is ignored."""


@checked
def evaluate_success(
    agent: Predictor,
    env: VecEnv,
    n_episodes: Count = 50,
    deterministic: bool = True,
    confidence: Confidence = 0.95,
    progress_bar: bool = False,
    seed: Seed | None = None,
) -> SuccessReport:
    """Run ``n_episodes`` episodes of every task and report what came of them.

    A task's episodes are shared out to its copies in the environment *before* the run. Taking the first
    ``n_episodes`` to finish instead would count short episodes more often than they happen, and where
    episodes end at success these are the successful ones.

    The global torch generators are seeded for the episodes and restored after them: an evaluation in the middle of a
    training does not change it, and two evaluations with ``deterministic=False`` draw different actions.

    Args:
        agent: anything with SB3's ``predict``.
        env: a multi-task vector environment (``task_names``, ``task_ids``) of its own, not the training one.
        n_episodes: episodes for each task.
        deterministic: act by the mean of the policy instead of sampling from it.
        confidence: two-sided level of the report's intervals.
        progress_bar: show a bar of finished episodes.
        seed: of the actions that are sampled; None takes a fresh one each time. Episodes follow from the environment's.

    Returns:
        `SuccessReport`; episodes in the order of the copies, then of time. A task of which no info holds
        ``success`` or ``is_success`` has returns and lengths, but no success rate.

    Raises:
        ArgumentError: if an argument is out of range, the environment is not a multi-task one, or is the one
            the agent trains in.
        TaskMismatchError: if the agent was made for other tasks, the same in another order, or for other
            observations.
        NonFiniteError: if the agent acts with a NaN or an infinity; names task and step.
        EnvironmentFaultError: if only some episodes of a task tell of success, or in a wrong type, a return is NaN,
            or an episode outlasts the horizon.
    """
    if not callable(getattr(agent, "predict", None)):
        raise ArgumentError(f"agent must have a method predict, got {type(agent).__name__}")
    check_evaluation_env(agent, env)
    tally = _Tally(env, n_episodes)
    with _seeded_generators(agent, seed), counting_bar("episodes", int(tally.quota.sum()), progress_bar) as advance:
        observations = env.reset()
        while not tally.complete:
            actions, _ = agent.predict(observations, deterministic=deterministic)
            tally.check_actions(actions, observations)
            observations, rewards, dones, infos = env.step(actions)
            advance(tally.add(rewards, dones, infos))
    return tally.report(confidence, EvaluationProtocol.of(agent, env, deterministic))


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
        self.known_success = KnownSuccess(len(self.task_names))

    @property
    def complete(self) -> bool:
        return all(len(episodes) >= quota for episodes, quota in zip(self.episodes, self.quota, strict=True))

    def check_actions(self, actions: Any, observations: Any) -> None:
        faulty = ~np.isfinite(np.asarray(actions)).reshape(len(self.quota), -1).all(axis=1)
        if not faulty.any():
            return
        i = int(np.flatnonzero(faulty)[0])
        finite = isinstance(observations, np.ndarray) and np.isfinite(observations[i]).all()
        cause = "its observation was finite" if finite else "its observation was not all finite numbers"
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
            try:
                success = success_of(info)
            except TypeError as error:
                raise EnvironmentFaultError(f"{self._where(i)}: {error}") from None
            if success is not None:
                self.informed[i] = True
                self.success[i] |= success
        if self.horizon is not None and (self.length > self.horizon).any():
            i = int(self.length.argmax())
            raise EnvironmentFaultError(f"{self._where(i)}: no end of the episode after {self.horizon} steps")
        return sum(self._finish(i, infos[i]) for i in np.flatnonzero(dones).tolist())

    def _finish(self, i: int, info: dict[str, Any]) -> bool:
        """Take in the end of an episode; returns whether it counts."""
        monitored = info.get("episode", {})
        total = float(monitored.get("r", self.total[i]))
        episode = bool(self.success[i]), total, int(monitored.get("l", self.length[i]))
        self.known_success.check(int(self.task_ids[i]), bool(self.informed[i]), self._where(i))
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

    def report(self, confidence: float, protocol: EvaluationProtocol) -> SuccessReport:
        by_task = [
            [episode for i in np.flatnonzero(self.task_ids == task) for episode in self.episodes[i]]
            for task in range(len(self.task_names))
        ]
        successes, returns, lengths = (
            np.array([[episode[part] for episode in row] for row in by_task]) for part in range(3)
        )
        known = np.array(self.known_success.tasks, np.bool_)
        return SuccessReport(tuple(self.task_names), successes, returns, lengths, confidence, known, protocol)


def _innermost(env: VecEnv) -> VecEnv:
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env


@contextmanager
def _seeded_generators(agent: object, seed: int | None) -> Iterator[None]:
    """Torch's global generators, seeded for a while: the CPU's, and that of the agent's GPU."""
    device = torch.device(getattr(agent, "device", "cpu"))
    seed = fresh_seed() if seed is None else seed
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed other GPUs, too
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
