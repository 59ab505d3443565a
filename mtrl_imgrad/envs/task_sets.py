"""Names of tasks and of task sets, as plain data: looking a name up imports no simulator.

The lists repeat Meta-World's, in Meta-World's order (the index of a task is the position of its bit in the
one-hot); a test holds them against the installed package.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.validation import checked

__all__ = [
    "METAWORLD_SETS",
    "METAWORLD_TASKS",
    "TOY_SET",
    "TOY_TASKS",
    "list_task_sets",
    "list_tasks",
    "resolve_tasks",
]

_MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
_MT25_REST = (
    "coffee-pull-v3",
    "pick-out-of-hole-v3",
    "disassemble-v3",
    "pick-place-wall-v3",
    "basketball-v3",
    "stick-pull-v3",
    "button-press-wall-v3",
    "faucet-open-v3",
    "door-lock-v3",
    "lever-pull-v3",
    "sweep-into-v3",
    "faucet-close-v3",
    "coffee-button-v3",
    "button-press-topdown-wall-v3",
    "dial-turn-v3",
)

METAWORLD_TASKS: tuple[str, ...] = (
    "assembly-v3",
    "basketball-v3",
    "bin-picking-v3",
    "box-close-v3",
    "button-press-topdown-v3",
    "button-press-topdown-wall-v3",
    "button-press-v3",
    "button-press-wall-v3",
    "coffee-button-v3",
    "coffee-pull-v3",
    "coffee-push-v3",
    "dial-turn-v3",
    "disassemble-v3",
    "door-close-v3",
    "door-lock-v3",
    "door-open-v3",
    "door-unlock-v3",
    "hand-insert-v3",
    "drawer-close-v3",
    "drawer-open-v3",
    "faucet-open-v3",
    "faucet-close-v3",
    "hammer-v3",
    "handle-press-side-v3",
    "handle-press-v3",
    "handle-pull-side-v3",
    "handle-pull-v3",
    "lever-pull-v3",
    "pick-place-wall-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "plate-slide-v3",
    "plate-slide-side-v3",
    "plate-slide-back-v3",
    "plate-slide-back-side-v3",
    "peg-insert-side-v3",
    "peg-unplug-side-v3",
    "soccer-v3",
    "stick-push-v3",
    "stick-pull-v3",
    "push-v3",
    "push-wall-v3",
    "push-back-v3",
    "reach-v3",
    "reach-wall-v3",
    "shelf-place-v3",
    "sweep-into-v3",
    "sweep-v3",
    "window-open-v3",
    "window-close-v3",
)
"""The fifty tasks of Meta-World v3, in MT50's order."""

METAWORLD_SETS: dict[str, tuple[str, ...]] = {
    "MT10": _MT10,
    "MT25": _MT10 + _MT25_REST,
    "MT50": METAWORLD_TASKS,
}
"""Meta-World's multi-task benchmarks by name."""

TOY_SET = "toy-reach"
TOY_TASKS: tuple[str, ...] = ("toy-reach/right", "toy-reach/up", "toy-reach/left", "toy-reach/down")
"""The tasks of the toy set; a task is named after the way in which the action (1, 0) moves the point."""


def list_task_sets() -> list[str]:
    """Names of the task sets that ``make_vec_env`` knows."""
    return [*METAWORLD_SETS, TOY_SET]


@checked
def list_tasks(task_set: str | None = None) -> list[str]:
    """Names of the tasks of a set, in the order of their one-hot bits.

    Args:
        task_set: ``"MT10"``, ``"MT25"``, ``"MT50"`` or ``"toy-reach"``; None lists every task there is.

    Raises:
        UnknownNameError: There is no such set.

    Example:
        >>> list_tasks("MT10")[:3]
        ['reach-v3', 'push-v3', 'pick-place-v3']
    """
    if task_set is None:
        return [*METAWORLD_TASKS, *TOY_TASKS]
    if task_set == TOY_SET:
        return list(TOY_TASKS)
    if task_set not in METAWORLD_SETS:
        raise UnknownNameError("task set", task_set, list_task_sets())
    return list(METAWORLD_SETS[task_set])


def resolve_tasks(tasks: str | Sequence[str]) -> list[str]:
    """Full names of the tasks that ``tasks`` stands for.

    Args:
        tasks: The name of a set, of a task (``"reach-v3"``, ``"reach"``, or Meta-World's ``"MT1/reach-v3"``), or a
            sequence of task names, whose order is kept.

    Returns:
        K task names, all of one family (Meta-World or toy), each once.

    Raises:
        UnknownNameError: A name is neither a set nor a task.
        ArgumentError: No task, a task twice, a set within a sequence, or a mixture of families.

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
    if len({name in TOY_TASKS for name in names}) > 1:
        raise ArgumentError(f"tasks mixes toy and Meta-World tasks, which share no observation space: {names}")
    return names


def _full_name(task: object, sets: Sequence[str] = ()) -> str:
    """The task's full name (``reach`` is short for ``reach-v3``)."""
    if not isinstance(task, str):
        raise ArgumentError(f"tasks holds {task!r}, a {type(task).__name__}; task names are strings")
    known = [*METAWORLD_TASKS, *TOY_TASKS]
    if task in known:
        return task
    if f"{task}-v3" in known:
        return f"{task}-v3"
    if task in list_task_sets():
        raise ArgumentError(f"tasks holds the set {task!r} within a sequence; pass {task!r} alone, or task names")
    if task == "MT1":
        raise UnknownNameError("task", "MT1 (a one-task set goes by its task's name, for instance 'reach-v3')", known)
    raise UnknownNameError("task", task, [*sets, *known])
