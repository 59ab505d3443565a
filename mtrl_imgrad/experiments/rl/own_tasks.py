"""Tasks of the user's own by name, on the command line and in YAML: ``--env package.module:attribute``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrl_imgrad.errors import ArgumentError

if TYPE_CHECKING:
    from mtrl_imgrad.envs.backends.own_tasks import MakeEnv


def find_tasks(names: Sequence[str]) -> str | list[str] | dict[str, MakeEnv]:
    """Tasks for `make_vec_env` from the option ``--env``.

    A name with a colon is a module and what it holds: a mapping from task names to Gymnasium ids or functions that
    build environments, or one such function, which is a task by its own name. Modules are looked for in the working
    folder, too.

    Args:
        names: a task set, task names, or names with a colon, whose tasks are put together.

    Raises:
        ArgumentError: if there is no such module or attribute, it holds something else, a task comes twice, or tasks of
            the library and others are mixed.
    """
    own = [name for name in names if ":" in name]
    if not own:
        return names[0] if len(names) == 1 else list(names)
    if len(own) < len(names):
        raise ArgumentError(f"env must name tasks of the library or of your own, not both, got {list(names)}")
    tasks: dict[str, MakeEnv] = {}
    for name in own:
        for task, make in _tasks_at(name).items():
            if task in tasks:
                raise ArgumentError(f"env {name!r}: the task {task!r} is there already")
            tasks[task] = make
    return tasks


def _tasks_at(name: str) -> dict[str, Any]:
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # a console script looks beside itself only
    try:
        held = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(f"env {name!r}: {error}; expected package.module:attribute") from error
    if isinstance(held, Mapping):
        return dict(held)
    if callable(held):
        return {attribute: held}
    raise ArgumentError(
        f"env {name!r} must hold a function that builds a Gymnasium environment, or a mapping from task names to such "
        f"functions or ids, got {type(held).__name__}"
    )
