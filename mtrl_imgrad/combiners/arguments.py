"""Checks of a combiner's arguments. Numbers may be Python's or NumPy's; a bool is no number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError

__all__ = ["check_choice", "check_count", "check_flag", "check_number", "check_numbers", "check_seed", "check_tensor"]


def check_number(
    argument: str, value: object, low: float = -math.inf, high: float = math.inf, *, closed: bool = True
) -> float:
    """``value`` as a float, if it is a finite number in ``[low, high]``.

    Args:
        argument: name for the message.
        value: what to check.
        low: least value.
        high: largest value.
        closed: whether ``low`` itself will do.

    Raises:
        ArgumentError: if it is not.
    """
    number = _as_float(value)
    if not math.isfinite(number) or not low <= number <= high or (number == low and not closed):
        raise ArgumentError(f"{argument} must be a finite number{_interval(low, high, closed)}, got {value!r}")
    return number


def check_numbers(
    argument: str, values: object, low: float = -math.inf, high: float = math.inf, *, closed: bool = True
) -> tuple[float, ...]:
    """A sequence of at least one number as floats; the bounds as for `check_number`.

    Raises:
        ArgumentError: if it is something else.
    """
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)) or not values:
        raise ArgumentError(f"{argument} must be a sequence of numbers, got {values!r}")
    return tuple(check_number(argument, value, low, high, closed=closed) for value in values)


def check_count(argument: str, value: object, low: int = 1) -> int:
    """``value`` as an int, if it is an integer of at least ``low``.

    Raises:
        ArgumentError: if it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) < 2**63:
        raise ArgumentError(f"{argument} must be an integer >= {low}, got {value!r}")
    return int(value)


def check_seed(seed: object) -> int:
    """``seed`` as an int, if it can seed a generator.

    Raises:
        ArgumentError: if it is not an integer in [0, 2^63).
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < 2**63:
        raise ArgumentError(f"seed must be an integer in [0, 2^63), got {seed!r}")
    return int(seed)


def check_flag(argument: str, value: object) -> bool:
    """``value``, if it is True or False.

    Raises:
        ArgumentError: if it is not: any text would count as True.
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"{argument} must be True or False, got {value!r}")
    return value


def check_choice(argument: str, value: object, accepted: Sequence[str]) -> None:
    """Check an argument that takes one of a few names.

    Raises:
        ArgumentError: if ``value`` is not accepted; lists what is.
    """
    if not isinstance(value, str) or value not in accepted:
        raise ArgumentError(f"{argument} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def check_tensor(argument: str, value: object) -> None:
    """Check that ``value`` is a dense tensor of floating point numbers.

    Raises:
        ArgumentError: if it is something else.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise ArgumentError(f"{argument} must be a dense tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise ArgumentError(f"{argument} must be floating point, got {value.dtype}")


def _as_float(value: object) -> float:
    """NaN for what is no number, or too large for a float."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _interval(low: float, high: float, closed: bool) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" {'>=' if closed else '>'} {low:g}"
    return f" in {'[' if closed else '('}{low:g}, {high:g}]"
