"""``make_vec_env``: from the name of a task set to a vector environment, on a back-end that can do it."""

from __future__ import annotations

import importlib.util
import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtrl_imgrad.envs.task_sets import TOY_TASKS, resolve_tasks
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError, UnknownNameError
from mtrl_imgrad.validation import checked

if TYPE_CHECKING:
    from mtrl_imgrad.envs.backends.own_tasks import MakeEnv

__all__ = ["make_vec_env"]

_LOG = logging.getLogger(__name__)

_BACKENDS = ("auto", "metaworld", "envpool", "toy", "gymnasium")
_MAX_HORIZON = 500  # Meta-World's own limit, max_path_length
_DEFAULT_GOALS = 50  # a task, as in the Meta-World+ protocol


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

    def common(self) -> dict[str, Any]:
        """What every back-end takes."""
        arguments = {
            "seed": self.seed,
            "num_envs_per_task": self.num_envs_per_task,
            "one_hot": self.one_hot,
            "terminate_on_success": self.terminate_on_success,
        }
        return arguments if self.horizon is None else {**arguments, "horizon": self.horizon}


@checked
def make_vec_env(
    tasks: str | Sequence[str] | Mapping[str, MakeEnv],
    seed: int = 0,
    backend: str = "auto",
    num_envs_per_task: int = 1,
    vector_strategy: str = "sync",
    horizon: int | None = None,
    reward_version: str = "v2",
    num_goals: int | str | None = "auto",
    one_hot: bool = True,
    terminate_on_success: bool = False,
    num_threads: int | None = None,
    num_workers: int | None = None,
    worker_timeout: float = 60.0,
    worker_restarts: int = 0,
    render_mode: str | None = None,
) -> MultiTaskVecEnv:
    """Build a multi-task vector environment that Stable-Baselines3's algorithms take as it is.

    Args:
        tasks: A set (``"MT10"``, ``"MT25"``, ``"MT50"``, ``"toy-reach"``), one task (``"reach-v3"`` or
            ``"reach"``), or a sequence of task names, whose order is that of the one-hot. Or tasks of your own: a
            mapping from names to Gymnasium ids or to functions that build environments, see
            `mtrl_imgrad.envs.backends.own_tasks`.
        seed: Seed of all goals and episodes. The same seed and arguments give the same episodes, within a
            back-end.
        backend: ``"metaworld"`` (the reference), ``"envpool"`` (a faster port, optional package), ``"toy"``,
            ``"gymnasium"`` (tasks of your own), or ``"auto"``: for Meta-World's tasks EnvPool where it is installed
            and can do all that is asked for, the reference otherwise. Which one it became is in the result's
            ``backend`` and in the log (INFO).
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
    if backend not in _BACKENDS:
        raise UnknownNameError("backend", backend, _BACKENDS)
    own = dict(tasks) if isinstance(tasks, Mapping) else None
    options = _Options(
        task_names=resolve_tasks(tasks) if not isinstance(tasks, Mapping) else list(tasks),
        seed=_integer("seed", seed, 0),
        num_envs_per_task=_integer("num_envs_per_task", num_envs_per_task, 1),
        vector_strategy=_one_of("vector_strategy", vector_strategy, ("sync", "async")),
        horizon=None if horizon is None else _integer("horizon", horizon, 1, _MAX_HORIZON if own is None else None),
        reward_version=_one_of("reward_version", reward_version, ("v2", "v1")),
        num_goals=num_goals if num_goals in (None, "auto") else _integer("num_goals", num_goals, 1, _DEFAULT_GOALS),
        one_hot=_flag("one_hot", one_hot),
        terminate_on_success=_flag("terminate_on_success", terminate_on_success),
        num_threads=None if num_threads is None else _integer("num_threads", num_threads, 1),
        num_workers=None if num_workers is None else _integer("num_workers", num_workers, 1),
        worker_timeout=_positive("worker_timeout", worker_timeout),
        worker_restarts=_integer("worker_restarts", worker_restarts, 0),
        render_mode=None if render_mode is None else _one_of("render_mode", render_mode, ("rgb_array",)),
    )
    if options.worker_restarts and options.vector_strategy == "sync":
        raise ArgumentError(
            f"worker_restarts={worker_restarts} needs worker processes, vector_strategy='async'; it is 'sync'"
        )
    chosen = _choose_backend(backend, options, own is not None)
    if own is not None:
        return _make_own(own, options)
    if chosen == "toy":
        return _make_toy(options)
    return _make_envpool(options) if chosen == "envpool" else _make_metaworld(options)


def _choose_backend(backend: str, options: _Options, own: bool) -> str:
    """The back-end to build; refuses one that cannot do what is asked for."""
    first = next(iter(options.task_names), "")
    family = ("gymnasium",) if own else ("toy",) if first in TOY_TASKS else ("metaworld", "envpool")
    if backend != "auto" and backend not in family:
        raise ArgumentError(f"backend={backend!r} does not have the task {first!r}, which backend={family[0]!r} has")
    objections = _objections(options, renders=own)
    if backend == "metaworld":
        return backend
    if backend == "envpool" or len(family) == 1:
        if objections:
            raise ArgumentError(f"backend={family[-1]!r} cannot do what is asked for: {'; '.join(objections)}")
        return family[-1]
    if importlib.util.find_spec("envpool") is None:
        objections = ["it is not installed (pip install mtrl-imgrad[fast])"]
    if objections:
        _LOG.info("backend: metaworld, because envpool cannot be had: %s", "; ".join(objections))
        return "metaworld"
    _LOG.info("backend: envpool, which is installed and can do all that is asked for; fresh goals at every reset")
    return "envpool"


def _objections(options: _Options, renders: bool) -> list[str]:
    """What is asked for that the reference alone can do (and render, where the back-end does not)."""
    objections = []
    if options.reward_version != "v2":
        objections.append(f"reward_version={options.reward_version!r} (has v2 only)")
    if isinstance(options.num_goals, int):
        objections.append(f"num_goals={options.num_goals} (draws a fresh goal at every reset, num_goals=None)")
    if options.vector_strategy != "sync":
        objections.append(f"vector_strategy={options.vector_strategy!r} (has no worker processes)")
    if options.render_mode is not None and not renders:
        objections.append(f"render_mode={options.render_mode!r} (does not render)")
    return objections


def _make_own(tasks: Mapping[str, MakeEnv], options: _Options) -> MultiTaskVecEnv:
    from mtrl_imgrad.envs.backends.own_tasks import OwnTasksVecEnv

    return OwnTasksVecEnv(tasks, render_mode=options.render_mode, **options.common())


def _make_toy(options: _Options) -> MultiTaskVecEnv:
    from mtrl_imgrad.envs.backends.toy import ToyReachVecEnv

    return ToyReachVecEnv(options.task_names, **options.common())


def _make_envpool(options: _Options) -> MultiTaskVecEnv:
    from mtrl_imgrad.envs.backends.envpool import EnvPoolVecEnv

    return EnvPoolVecEnv(options.task_names, num_threads=options.num_threads, **options.common())


def _make_metaworld(options: _Options) -> MultiTaskVecEnv:
    try:
        from mtrl_imgrad.envs.backends.metaworld import MetaWorldVecEnv
    except ImportError as error:
        raise MissingDependencyError(
            "backend='metaworld' needs the package metaworld: pip install metaworld"
        ) from error
    return MetaWorldVecEnv(
        options.task_names,
        vector_strategy=options.vector_strategy,
        reward_version=options.reward_version,
        num_goals=_DEFAULT_GOALS if options.num_goals == "auto" else options.num_goals,  # type: ignore[arg-type]
        num_workers=options.num_workers,
        worker_timeout=options.worker_timeout,
        worker_restarts=options.worker_restarts,
        render_mode=options.render_mode,
        **options.common(),
    )


def _integer(name: str, value: object, low: int, high: int | None = None) -> int:
    bounds = f"at least {low}" if high is None else f"between {low} and {high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentError(f"{name} must be an integer, {bounds}, not {value!r}") from None
    if number < low or (high is not None and number > high):
        raise ArgumentError(f"{name} must be {bounds}, not {number}")
    return number


def _one_of(name: str, value: object, known: Sequence[str]) -> str:
    if value not in known:
        raise ArgumentError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return str(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, not {value!r}")
    return value


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ArgumentError(f"{name} must be a positive number, not {value!r}")
    return float(value)
