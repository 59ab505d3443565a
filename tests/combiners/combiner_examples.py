"""One combiner of every name, ready to be used: with the arguments that must be given, and windows of few steps."""

from __future__ import annotations

from typing import Any

from mtrl_imgrad.combiners import Combiner, make_combiner

LOW = {"lower_bound": -1e4}


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
