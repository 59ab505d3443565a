"""Checks of numbers among a combiner's arguments."""

from __future__ import annotations

import math

from mtrl_imgrad.errors import ArgumentError

__all__ = ["check_count", "check_number", "check_positive"]


def check_number(name: str, value: float, lowest: float = -math.inf) -> float:
    """``value`` as a float.

    Raises:
        ArgumentError: if it is not a finite number of at least ``lowest``.
    """
    if not _is_number(value) or value < lowest:
        bound = "" if math.isinf(lowest) else f" >= {lowest:g}"
        raise ArgumentError(f"{name} must be a finite number{bound}, got {value!r}")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """``value`` as a float.

    Raises:
        ArgumentError: if it is not a finite number above zero.
    """
    if not _is_number(value) or value <= 0:
        raise ArgumentError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def check_count(name: str, value: int, lowest: int = 1) -> int:
    """``value``, if it is an integer of at least ``lowest``.

    Raises:
        ArgumentError: if it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ArgumentError(f"{name} must be an integer >= {lowest}, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
