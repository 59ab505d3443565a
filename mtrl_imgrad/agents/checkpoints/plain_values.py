"""Constructor arguments to JSON and back: plain values, and a few classes and objects by name.

A checkpoint runs no code, so it holds no function and no class of the user's. It notes that such an argument was given,
and loading asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.combiners.registry import combiner_class, list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError

CLASSES: dict[str, type] = {
    **{name: getattr(torch.nn, name) for name in ("ReLU", "Tanh", "ELU", "GELU", "SiLU", "LeakyReLU", "Mish")},
    **{name: getattr(torch.optim, name) for name in ("Adam", "AdamW", "RMSprop", "SGD")},
}
"""Classes that policies and agents take as arguments; an agent adds its own."""


class UnknownValueError(ArgumentError):
    """A value that has no name here."""


def to_plain(value: Any) -> Any:
    """A value as JSON can hold it.

    Raises:
        UnknownValueError: if it cannot.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float, np.integer, np.floating)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Mapping) and all(isinstance(key, str) and not key.startswith("=") for key in value):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, TrainFreq):
        return (value.frequency, value.unit.value)
    if isinstance(value, (list, tuple)):
        entries = [to_plain(entry) for entry in value]
        return entries if isinstance(value, list) else tuple(entries)
    return _named(value)


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, FloatSchedule):
        return to_plain(value.value_schedule)
    if isinstance(value, ConstantSchedule):
        return to_plain(value.val)
    if isinstance(value, LinearSchedule):
        return {"=linear_schedule": [float(number) for number in (value.start, value.end, value.end_fraction)]}
    for name, known in CLASSES.items():
        if value is known:
            return {"=class": name}
    if isinstance(value, Combiner):
        return _combiner(value)
    raise UnknownValueError(f"{value!r} is a value that a checkpoint cannot hold")


def _combiner(value: Combiner) -> dict[str, Any]:
    """Its registry name and those of its arguments that it keeps as attributes, which is all of them."""
    name = getattr(value, "name", None)
    if name not in list_combiners() or combiner_class(name) is not type(value):
        raise UnknownValueError(f"{value!r} is not of the library's combiners")
    parameters = inspect.signature(type(value)).parameters
    if not all(hasattr(value, parameter) for parameter in parameters):
        raise UnknownValueError(f"{value!r} does not keep its arguments")
    return {"=combiner": name, "arguments": {key: to_plain(getattr(value, key)) for key in parameters}}


def from_plain(plain: Any) -> Any:
    """The value that `to_plain` wrote.

    Raises:
        ArgumentError: if there is none.
    """
    if isinstance(plain, (list, tuple)):
        return type(plain)(from_plain(entry) for entry in plain)
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"=linear_schedule": [float() as start, float() as end, float() as fraction], **rest} if not rest:
            return LinearSchedule(start, end, fraction)
        case {"=class": str() as name, **rest} if not rest and name in CLASSES:
            return CLASSES[name]
        case {"=combiner": str() as name, "arguments": dict() as arguments, **rest} if not rest:
            return make_combiner(name, **from_plain(arguments))
    if any(key.startswith("=") for key in plain):
        raise ArgumentError(f"{plain!r:.80} is not a value of an argument")
    return {key: from_plain(entry) for key, entry in plain.items()}
