"""One combiner of every name, ready to be used: with the arguments that must be given, and windows of few steps."""

from __future__ import annotations

import inspect
from typing import Any

from mtrl_imgrad.combiners import Combiner, list_combiners, make_combiner
from mtrl_imgrad.combiners.registry import combiner_class

LOW = {"lower_bound": -1e4}
BY_OPTION = {"update_every": 3, "tasks_per_step": 2}
"""Arguments with which a combiner without a memory gets one."""


def example_arguments(name: str, num_tasks: int, any_losses: bool = False) -> dict[str, Any]:
    """Arguments for ``make_combiner(name, ...)``; with ``any_losses`` those that take losses below zero as well."""
    found: dict[str, Any] = {
        "cotbal": {
            "mini": [0.5 + 0.01 * task for task in range(num_tasks)],
            "single": [[0.6 + 0.1 * (i == j) + 0.003 * i * j for j in range(num_tasks)] for i in range(num_tasks)],
        },
        "dwa": {"window": 2},
        "igb_v1": {"window": 2},
        "igb_v2": {"window": 2, "update_every": 4},
        "stch": {"window": 2, "warm_up": 1},
    }.get(name, {})
    return found | (LOW if any_losses and name in ("si", "gls", "famo", "igb_v1", "igb_v2", "stch") else {})


def make_example(name: str, num_tasks: int, any_losses: bool = False) -> Combiner:
    """A combiner of this name for ``num_tasks`` tasks."""
    return make_combiner(name, **example_arguments(name, num_tasks, any_losses))


def list_variants(num_tasks: int, any_losses: bool = False) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every combiner of the registry, and again with each option of `BY_OPTION` that it takes.

    Returns:
        Name and arguments by a word for both.
    """
    found = {}
    for name in list_combiners():
        given = example_arguments(name, num_tasks, any_losses)
        found[name] = (name, given)
        for option in BY_OPTION.keys() & inspect.signature(combiner_class(name)).parameters.keys() - given.keys():
            found[f"{name}-{option}"] = (name, {**given, option: BY_OPTION[option]})
    return dict(sorted(found.items()))
