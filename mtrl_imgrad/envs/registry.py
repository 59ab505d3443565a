"""Simulator back-ends as data: one record each says which tasks a back-end has and what it can do.

``make_vec_env`` compares these records with what is asked for; command line, doctor and docs read them. The order
counts: of several back-ends with the same tasks the first is the reference, and ``backend="auto"`` prefers later ones.
Reading a record imports no simulator and no torch.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from mtrl_imgrad.envs.task_sets import METAWORLD_SETS, TOY_SET, TOY_TASKS
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.validation import Count, NonNegativeInt, checked

ENTRY_POINTS = "mtrl_imgrad.backends"
"""Group of entry points under which an installed package offers a `Backend`."""


@checked
@dataclass(frozen=True)
class Backend:
    """A simulator back-end: its tasks and its features.

    The constructor behind ``vec_env`` takes the tasks and ``seed``, ``num_envs_per_task``, ``horizon`` (if one is asked
    for), ``one_hot`` and ``terminate_on_success``, and the further arguments of `make_vec_env` that the record
    mentions.

    Attributes:
        name: As in ``make_vec_env(backend=name)``.
        vec_env: The `MultiTaskVecEnv` class, or ``"module:class"``, imported when an environment is built.
        task_sets: Task names by set; the order is that of the one-hot.
        own_tasks: Takes a mapping from task names to Gymnasium environments in place of task names.
        package: Module that has to be installed; None: nothing but this library.
        install: What ``pip install`` takes to get it; "" is ``package``. Where it is given the package is optional.
        reward_versions: Reward functions there are; the constructor takes ``reward_version`` if more than one.
        fixed_goals: Most goals, and by default, of a task's fixed list; the constructor takes ``num_goals`` if not 0.
            0: each reset draws a fresh goal.
        max_horizon: Longest episode; None: any.
        workers: Steps in worker processes; the constructor takes ``vector_strategy``, ``num_workers``,
            ``worker_timeout`` and ``worker_restarts``.
        threads: The constructor takes ``num_threads``.
        renders: The constructor takes ``render_mode="rgb_array"``.
        restores: Repeats its resets, so that episodes are saved and restored (``_get_streams``).

    Raises:
        ArgumentError: A set without tasks, or with a task twice; or no task at all.
    """

    name: str
    vec_env: str | Callable[..., Any]
    task_sets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    own_tasks: bool = False
    package: str | None = None
    install: str = ""
    reward_versions: tuple[str, ...] = ("v2",)
    fixed_goals: NonNegativeInt = 0
    max_horizon: Count | None = None
    workers: bool = False
    threads: bool = False
    renders: bool = False
    restores: bool = True

    def __post_init__(self) -> None:
        if not self.task_sets and not self.own_tasks:
            raise ArgumentError(f"backend {self.name!r}: task_sets must name a task set, got none")
        for name, tasks in self.task_sets.items():
            if not tasks or len(set(tasks)) < len(tasks):
                raise ArgumentError(f"task_sets[{name!r}] must name different tasks, got {list(tasks)}")

    @property
    def tasks(self) -> list[str]:
        """Every task, those of the largest set first."""
        by_size = sorted(self.task_sets.values(), key=len, reverse=True)
        return list(dict.fromkeys(name for tasks in by_size for name in tasks))

    @property
    def is_installed(self) -> bool:
        """Whether its package is found."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    @property
    def install_command(self) -> str:
        """The command that installs its package."""
        return f"pip install {self.install or self.package}"

    def load(self) -> Callable[..., Any]:
        """The class behind ``vec_env``; imports the simulator."""
        if not isinstance(self.vec_env, str):
            return self.vec_env
        module, _, name = self.vec_env.partition(":")
        return getattr(importlib.import_module(module), name)


_OURS = (
    Backend(
        "metaworld",
        "mtrl_imgrad.envs.backends.metaworld:MetaWorldVecEnv",
        METAWORLD_SETS,
        package="metaworld",
        install="'mtrl-imgrad[rl]'",
        reward_versions=("v2", "v1"),
        fixed_goals=50,  # a task, as in the Meta-World+ protocol
        max_horizon=500,  # Meta-World's own limit, max_path_length
        workers=True,
        renders=True,
    ),
    Backend(
        "envpool",
        "mtrl_imgrad.envs.backends.envpool:EnvPoolVecEnv",
        METAWORLD_SETS,
        package="envpool",
        install="'mtrl-imgrad[fast]'",
        max_horizon=500,
        threads=True,
    ),
    Backend("toy", "mtrl_imgrad.envs.backends.toy:ToyReachVecEnv", {TOY_SET: TOY_TASKS}),
    Backend("gymnasium", "mtrl_imgrad.envs.backends.own_tasks:OwnTasksVecEnv", own_tasks=True, renders=True),
)


@functools.cache
def _registry() -> dict[str, Backend]:
    """Our back-ends and those that installed packages offer as entry points, by name."""
    known = {backend.name: backend for backend in _OURS}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            _add(entry.load(), known)
        except Exception as error:  # a broken package must not stop training elsewhere
            warnings.warn(f"the back-end {entry.name!r} ({entry.value}) is unavailable: {error}", stacklevel=2)
    return known


def _add(backend: Backend, known: dict[str, Backend]) -> None:
    if not isinstance(backend, Backend):
        raise ArgumentError(f"backend must be a Backend, got {backend!r:.80}")
    if backend.name in ("auto", *(ours.name for ours in _OURS)):
        raise ArgumentError(f"backend must have a name of its own, got {backend.name!r}")
    for other in known.values():
        for name, tasks in backend.task_sets.items():
            if other.name != backend.name and list(tasks) != list(other.task_sets.get(name, tasks)):
                raise ArgumentError(f"task_sets[{name!r}] must hold what it holds for {other.name!r}, or be renamed")
    known[backend.name] = backend


@checked
def register_backend(backend: Backend) -> None:
    """Make a back-end known to `make_vec_env`, by its name and by the names of its tasks.

    An installed package can offer the record as an entry point of the group ``mtrl_imgrad.backends`` instead; the
    command line then knows it, too. Registering a name again replaces the record.

    Args:
        backend: The record. For a task that another back-end has, too, ``backend="auto"`` prefers this one.

    Raises:
        ArgumentError: The name is one of this library's, or a task set's name already stands for other tasks.
    """
    _add(backend, _registry())


def list_backends() -> list[Backend]:
    """Records of all back-ends, references first."""
    return list(_registry().values())


def check_backend(name: str) -> str:
    """``name``, if it is ``"auto"`` or a back-end's.

    Raises:
        UnknownNameError: It is neither.
    """
    names = ["auto", *_registry()]
    if name not in names:
        raise UnknownNameError("backend", name, names)
    return name


def find_backends(tasks: Sequence[str]) -> list[Backend]:
    """Back-ends that have all of ``tasks``, the reference first."""
    return [backend for backend in list_backends() if backend.task_sets and set(tasks) <= set(backend.tasks)]


def list_task_sets() -> list[str]:
    """Names of the task sets that ``make_vec_env`` knows."""
    return list(dict.fromkeys(name for backend in list_backends() for name in backend.task_sets))


@checked
def list_tasks(task_set: str | None = None) -> list[str]:
    """Names of the tasks of a set, in the order of their one-hot bits.

    Args:
        task_set: ``"MT10"``, ``"MT25"``, ``"MT50"``, ``"toy-reach"``, or one that was registered; None lists every
            task there is.

    Raises:
        UnknownNameError: There is no such set.

    Example:
        >>> list_tasks("MT10")[:3]
        ['reach-v3', 'push-v3', 'pick-place-v3']
    """
    if task_set is None:
        return list(dict.fromkeys(name for backend in list_backends() for name in backend.tasks))
    for backend in list_backends():
        if task_set in backend.task_sets:
            return list(backend.task_sets[task_set])
    raise UnknownNameError("task set", task_set, list_task_sets())


def resolve_tasks(tasks: str | Sequence[str]) -> list[str]:
    """Full names of the tasks that ``tasks`` stands for.

    Args:
        tasks: The name of a set, of a task (``"reach-v3"``, ``"reach"``, or Meta-World's ``"MT1/reach-v3"``), or a
            sequence of task names, whose order is kept.

    Returns:
        K task names, each once, all of which some back-end has.

    Raises:
        UnknownNameError: A name is neither a set nor a task.
        ArgumentError: No task, a task twice, a set within a sequence, or tasks that no single back-end has.

    Example:
        >>> resolve_tasks("MT1/reach-v3"), resolve_tasks(["push-v3", "reach"])
        (['reach-v3'], ['push-v3', 'reach-v3'])
    """
    if isinstance(tasks, str):
        tasks = tasks.removeprefix("MT1/")
        return list_tasks(tasks) if tasks in list_task_sets() else [_full_name(tasks, list_task_sets())]
    if not isinstance(tasks, Sequence):
        raise ArgumentError(f"tasks must be a name or a sequence of names, not {type(tasks).__name__}")
    names = [_full_name(task) for task in tasks]
    if not names:
        raise ArgumentError("tasks is empty: name at least one task")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArgumentError(f"tasks names {', '.join(repeated)} more than once; for copies set num_envs_per_task")
    if not find_backends(names):
        raise ArgumentError(f"tasks mixes tasks of different back-ends, which share no observation space: {names}")
    return names


def _full_name(task: object, sets: Sequence[str] = ()) -> str:
    """The task's full name (``reach`` is short for ``reach-v3``)."""
    if not isinstance(task, str):
        raise ArgumentError(f"tasks holds {task!r}, a {type(task).__name__}; task names are strings")
    known = list_tasks()
    if task in known:
        return task
    if f"{task}-v3" in known:
        return f"{task}-v3"
    if task in list_task_sets():
        raise ArgumentError(f"tasks holds the set {task!r} within a sequence; pass {task!r} alone, or task names")
    if task == "MT1":
        raise UnknownNameError("task", "MT1 (a one-task set goes by its task's name, for instance 'reach-v3')", known)
    raise UnknownNameError("task", task, [*sets, *known])
