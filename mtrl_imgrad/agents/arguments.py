"""Checking and reading of the agent's arguments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.errors import ArgumentError

__all__ = ["as_float", "check_ranges", "parse_ent_coef", "two_combiners"]


def two_combiners(combiner: Any, kwargs: Mapping[str, Any]) -> tuple[Combiner, Combiner]:
    """Combiners for actor and critic, copies of those given: state must not mix, nor leak to the caller.

    Args:
        combiner: name, `Combiner`, or ``dict(actor=..., critic=...)``.
        kwargs: arguments for both, or ``dict(actor=..., critic=...)`` of arguments.

    Raises:
        ArgumentError: if a dict has other keys, or a combiner or its arguments are wrong.
    """
    if isinstance(combiner, Mapping):
        if set(combiner) != {"actor", "critic"}:
            raise ArgumentError(f"combiner must have the keys 'actor' and 'critic', got {sorted(combiner)}")
        given = (combiner["actor"], combiner["critic"])
    else:
        given = (combiner, combiner)
    options = (kwargs.get("actor", {}), kwargs.get("critic", {})) if set(kwargs) <= {"actor", "critic"} else (kwargs,) * 2
    actor, critic = (make_combiner(copy.deepcopy(one), **its) for one, its in zip(given, options, strict=True))
    return actor, critic


def check_ranges(gamma: float, tau: float, max_grad_norm: float | None, heads: str) -> None:
    """Check the arguments that are numbers in a range or one of two words.

    Raises:
        ArgumentError: naming the argument.
    """
    if not 0 <= gamma <= 1:
        raise ArgumentError(f"gamma must lie in [0, 1], got {gamma}")
    if not 0 <= tau <= 1:
        raise ArgumentError(f"tau must lie in [0, 1], got {tau}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ArgumentError(f"max_grad_norm must be positive or None, got {max_grad_norm}")
    if heads not in ("unweighted", "weighted"):
        raise ArgumentError(f"heads must be 'unweighted' or 'weighted', got {heads!r}")


def parse_ent_coef(ent_coef: str | float) -> tuple[str, float]:
    """``"auto_0.1"`` to ``("auto", 0.1)``, ``0.2`` to ``("fixed", 0.2)``."""
    expected = "'auto', 'auto_<initial>', 'shared', 'shared_<initial>' or a positive number"
    if isinstance(ent_coef, str) and ent_coef.split("_")[0] in ("auto", "shared"):
        kind, _, initial = ent_coef.partition("_")
        value = as_float(initial, "ent_coef", expected) if initial else 1.0
    else:
        kind, value = "fixed", as_float(ent_coef, "ent_coef", expected)
    if not value > 0:
        raise ArgumentError(f"ent_coef must be {expected}, got {ent_coef!r}")
    return kind, value


def as_float(value: Any, argument: str, expected: str) -> float:
    """``value`` as a number.

    Raises:
        ArgumentError: naming the argument and what was expected.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{argument} must be {expected}, got {value!r}") from None
