"""``make_vec_env``: from the name of a task set to a vector environment, on a back-end that can do it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mtrl_imgrad.envs.registry import Backend, check_backend, find_backends, list_backends, resolve_tasks
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError
from mtrl_imgrad.validation import Count, NonNegativeInt, PositiveOrInf, Seed, checked

if TYPE_CHECKING:
    from mtrl_imgrad.envs.backends.own_tasks import MakeEnv
    from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Options:
    """The arguments of ``make_vec_env`` once checked, with their defaults filled in."""

    task_names: list[str]
    seed: int
    num_envs_per_task: int
    vector_strategy: str
    horizon: int | None
    reward_version: str
    num_goals: int | str | None
    one_hot: bool
    terminate_on_success: bool
    num_threads: int | None
    num_workers: int | None
    worker_timeout: float
    worker_restarts: int
    render_mode: str | None

    def arguments(self, backend: Backend) -> dict[str, Any]:
        """Arguments of a back-end's constructor, see `Backend`."""
        names = ["seed", "num_envs_per_task", "one_hot", "terminate_on_success"]
        names += ["horizon"] * (self.horizon is not None)
        names += ["reward_version"] * (len(backend.reward_versions) > 1)
        names += ["num_goals"] * bool(backend.fixed_goals)
        names += ["vector_strategy", "num_workers", "worker_timeout", "worker_restarts"] * backend.workers
        names += ["num_threads"] * backend.threads
        names += ["render_mode"] * backend.renders
        arguments = {name: getattr(self, name) for name in names}
        if arguments.get("num_goals") == "auto":
            arguments["num_goals"] = backend.fixed_goals
        return arguments


@checked
def make_vec_env(
    tasks: str | Sequence[str] | Mapping[str, MakeEnv],
    seed: Seed = 0,
    backend: str = "auto",
    num_envs_per_task: Count = 1,
    vector_strategy: Literal["sync", "async"] = "sync",
    horizon: Count | None = None,
    reward_version: str = "v2",
    num_goals: Count | Literal["auto"] | None = "auto",
    one_hot: bool = True,
    terminate_on_success: bool = False,
    num_threads: Count | None = None,
    num_workers: Count | None = None,
    worker_timeout: PositiveOrInf = 60.0,
    worker_restarts: NonNegativeInt = 0,
    render_mode: Literal["rgb_array"] | None = None,
) -> MultiTaskVecEnv:
    """Build a multi-task vector environment that Stable-Baselines3's algorithms take as it is.

    What each back-end can do stands in its record, see `mtrl_imgrad.envs.registry.Backend`.

    Args:
        tasks: A set (``"MT10"``, ``"MT25"``, ``"MT50"``, ``"toy-reach"``), one task (``"reach-v3"`` or
            ``"reach"``), or a sequence of task names, whose order is that of the one-hot. Or tasks of your own: a
            mapping from names to Gymnasium ids or to functions that build environments, see
            `mtrl_imgrad.envs.backends.own_tasks`.
        seed: Seed of all goals and episodes. The same seed and arguments give the same episodes, within a
            back-end.
        backend: ``"metaworld"`` (the reference), ``"envpool"`` (a faster port, optional package), ``"toy"``,
            ``"gymnasium"`` (tasks of your own), one that was registered (`register_backend`), or ``"auto"``: for
            Meta-World's tasks EnvPool where it is installed and can do all that is asked for, the reference otherwise.
            Which one it became is in the result's ``backend`` and in the log (INFO).
        num_envs_per_task: Environments of each task.
        vector_strategy: ``"sync"``, or ``"async"``: Meta-World in worker processes.
        horizon: Steps of an episode, for Meta-World 1 to 500. None: 500 for Meta-World, 25 for the toy set, what they
            are registered with for tasks of your own.
        reward_version: ``"v2"`` or ``"v1"`` (Meta-World's reward functions; EnvPool has v2 only).
        num_goals: Goals of each task, drawn once from the seed, out of which every reset picks one: 1 to 50
            (the reference only). None: a fresh goal at every reset. ``"auto"``: what is usual for the
            back-end, 50 on the reference and None on EnvPool, which has no list of goals; see the result's
            ``num_goals``.
        one_hot: Append the one-hot of the task, K wide (also for K = 1), to the observations.
        terminate_on_success: End an episode at its first success, by termination.
        num_threads: Threads of each task's pool on EnvPool; None takes what is fastest. Without effect
            elsewhere.
        num_workers: Worker processes for ``"async"``; None takes one a core. Without effect elsewhere.
        worker_timeout: Seconds until a worker that does not answer counts as hung.
        worker_restarts: How often, over the environment's life, workers of ``"async"`` are started anew after one
            raised, exited, was killed or hung, and the running episodes are brought back to where they were, bit for
            bit; a warning says so. What fails again at once is not tried a third time. 0: the first failure is an
            error.
        render_mode: None or ``"rgb_array"`` (the reference, and tasks of your own that were made for it).
            Without a display set the environment variable ``MUJOCO_GL`` to ``egl`` or ``osmesa`` before mujoco is
            first imported.

    Returns:
        The environment; see ``MultiTaskVecEnv`` for its observations, rewards and infos.

    Raises:
        UnknownNameError: Unknown task, set or back-end.
        ArgumentError: An argument is out of its range, or the back-end cannot do what it asks for; or a task of your
            own cannot be built or has other spaces than it must.
        MissingDependencyError: The back-end's package is not installed.
        WorkerError: A worker process could not be started.

    Example:
        >>> env = make_vec_env("toy-reach", seed=0)
        >>> env.reset().shape, env.task_names[0]
        ((4, 8), 'toy-reach/right')
    """
    check_backend(backend)
    own = isinstance(tasks, Mapping)
    options = _Options(
        task_names=list(tasks) if isinstance(tasks, Mapping) else resolve_tasks(tasks),
        seed=seed,
        num_envs_per_task=num_envs_per_task,
        vector_strategy=vector_strategy,
        horizon=horizon,
        reward_version=reward_version,
        num_goals=num_goals,
        one_hot=one_hot,
        terminate_on_success=terminate_on_success,
        num_threads=num_threads,
        num_workers=num_workers,
        worker_timeout=worker_timeout,
        worker_restarts=worker_restarts,
        render_mode=render_mode,
    )
    if options.worker_restarts and options.vector_strategy == "sync":
        raise ArgumentError(
            f"worker_restarts={worker_restarts} needs worker processes, vector_strategy='async'; it is 'sync'"
        )
    able = [known for known in list_backends() if known.own_tasks] if own else find_backends(options.task_names)
    chosen = _choose(backend, able, options)
    return _build(chosen, tasks if own else options.task_names, options)


def _choose(name: str, able: Sequence[Backend], asked: _Options) -> Backend:
    """The back-end to build, out of those that have the tasks; refuses one that cannot do what is asked for."""
    if name != "auto":
        chosen = next((backend for backend in able if backend.name == name), None)
        if chosen is None:
            first = next(iter(asked.task_names), "")
            raise ArgumentError(f"backend={name!r} does not have the task {first!r}, which {_names(able)} has")
    else:
        chosen, *faster = able  # the reference, which is also what is left if no other will do
        for backend in reversed(faster):
            objections = _refusals(backend, asked)
            if not backend.is_installed:
                objections = [f"it is not installed ({backend.install_command})"]
            if not objections:
                goals = "" if backend.fixed_goals else "; fresh goals at every reset"
                _LOG.info("backend: %s, installed and able to do all that is asked for%s", backend.name, goals)
                return backend
            _LOG.info("backend: %s is unavailable: %s", backend.name, "; ".join(objections))
        _LOG.info("backend: %s", chosen.name)
    if refusals := _refusals(chosen, asked):
        others = [backend for backend in able if not _refusals(backend, asked)]
        hint = f"; {_names(others)} can" if others else ""
        raise ArgumentError(f"backend={chosen.name!r} cannot do what is asked for: {', '.join(refusals)}{hint}")
    return chosen


def _refusals(backend: Backend, asked: _Options) -> list[str]:
    """Requested features that a back-end lacks, by its record."""
    versions, horizon, goals = backend.reward_versions, backend.max_horizon, asked.num_goals
    refusals = []
    if asked.horizon is not None and horizon is not None and asked.horizon > horizon:
        refusals.append(f"horizon={asked.horizon} (between 1 and {horizon})")
    if asked.reward_version not in versions:
        refusals.append(f"reward_version={asked.reward_version!r} (has {' and '.join(versions)} only)")
    if isinstance(goals, int) and goals > backend.fixed_goals:
        offer = f"between 1 and {backend.fixed_goals}" if backend.fixed_goals else "draws a fresh goal at every reset"
        refusals.append(f"num_goals={goals} ({offer}, or None)")
    if asked.vector_strategy != "sync" and not backend.workers:
        refusals.append(f"vector_strategy={asked.vector_strategy!r} (has no worker processes)")
    if asked.worker_restarts and not backend.restores:
        refusals.append(f"worker_restarts={asked.worker_restarts} (does not restore episodes)")
    if asked.render_mode is not None and not backend.renders:
        refusals.append(f"render_mode={asked.render_mode!r} (does not render)")
    return refusals


def _names(backends: Sequence[Backend]) -> str:
    return " or ".join(f"backend={backend.name!r}" for backend in backends)


def _build(backend: Backend, tasks: Any, asked: _Options) -> MultiTaskVecEnv:
    try:
        vec_env = backend.load()
        return vec_env(tasks, **asked.arguments(backend))
    except ImportError as error:
        if backend.package is None:
            raise
        raise MissingDependencyError(
            f"backend={backend.name!r} needs the package {backend.package}: {backend.install_command}"
        ) from error
