"""Arguments held against the annotations of what they are given to: who hands over a wrong type is told so at once.

``@checked`` on a public function or constructor refuses, before anything else happens, an argument that is not what its
annotation says, with an error that names it. What annotations cannot say (a range, a shape, one argument beside
another) the function checks itself.

    >>> @checked
    ... def scale(factor: float, unit: Literal["m", "km"] = "m") -> float:
    ...     return factor
    >>> scale("2")
    Traceback (most recent call last):
    mtrl_imgrad.errors.ArgumentError: factor must be a number, got '2'

A number may be Python's or NumPy's and is never a bool nor NaN; an integer has at most 64 bits; a list will do for a
tuple; a string is no sequence.
Whether a string is one of several names the function says itself, for it knows what they name.
Annotations that are protocols, type variables or only there for the type checker are not looked at.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import inspect
import math
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

import numpy as np

from mtrl_imgrad.errors import ArgumentError

__all__ = ["checked"]

_LIMIT = 2**63
"""Integers of more than 64 bits are no count, no seed and no time: NumPy and torch overflow on them."""

Target = TypeVar("Target", bound=Callable[..., Any])


def checked(target: Target) -> Target:
    """``target``, a function or a class, which raises `ArgumentError` where an argument is not what it should be.

    A class is changed in place, if it has a constructor of its own.
    """
    if not inspect.isclass(target):
        return _checked_function(target)
    if "__init__" in vars(target):
        type.__setattr__(target, "__init__", _checked_function(target.__init__))
    return target


def _checked_function(function: Target) -> Target:
    signature = inspect.signature(function)
    annotations: dict[str, Any] = {}

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not annotations:  # found when first called: they may name what is defined further down in the module
            names = _Names(vars(sys.modules[function.__module__]))
            annotations.update(inspect.get_annotations(function, locals=names, eval_str=True))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:  # in Python's own words, which name the function
            owner = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{owner}() {error}") from None
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            annotation = annotations.get(name, Any)
            if not _fits(value, annotation):
                raise ArgumentError(f"{name} must be {_words(annotation)}, got {_shown(value)}")
        return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


class _Names(dict[str, Any]):
    """What the names in a module's annotations stand for; `Any` for those that only exist for the type checker."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether ``value`` is what ``annotation`` says, as far as it says something that can be asked."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin is Literal:
        named = isinstance(value, str) and all(isinstance(one, str) for one in inner)
        return named or any(type(value) is type(one) and value == one for one in inner)
    if origin is type:
        return isinstance(value, type) and (not isinstance(inner[0], type) or issubclass(value, inner[0]))
    if origin is not None:
        return _fits_container(value, origin, inner)
    return _fits_class(value, annotation)


def _fits_container(value: Any, origin: type, inner: tuple[Any, ...]) -> bool:
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if len(inner) != 2 or inner[1] is not Ellipsis:
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return all(_fits(one, inner[0]) for one in value)
    if origin is os.PathLike:
        return isinstance(value, os.PathLike)
    if issubclass(origin, Sequence):
        if isinstance(value, (str, bytes)) or not isinstance(value, (origin, tuple)):
            return False
        return all(_fits(one, inner[0]) for one in value)
    if issubclass(origin, Mapping):
        # What was measured may be NaN; what was asked for may not.
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and (isinstance(one, float) or _fits(one, inner[1])) for key, one in value.items()
        )
    if origin is collections.abc.Callable:
        return callable(value)
    if issubclass(origin, collections.abc.Iterable):
        return isinstance(value, collections.abc.Iterable) and not isinstance(value, (str, bytes))
    return isinstance(value, origin)


def _fits_class(value: Any, annotation: Any) -> bool:
    if annotation is Any:
        return True
    if annotation is None:
        return value is None
    if annotation is bool:
        return isinstance(value, (bool, np.bool_))
    if annotation is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and -_LIMIT <= int(value) < _LIMIT
    if annotation is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if not isinstance(annotation, type) or getattr(annotation, "_is_protocol", False) or is_typeddict(annotation):
        return True
    return isinstance(value, annotation)


_WORDS = {
    None: "None",
    type(None): "None",
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    os.PathLike: "a path",
}


def _words(annotation: Any) -> str:
    """An annotation for people."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is type:
        return f"a class of {getattr(inner[0], '__name__', inner[0])}"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a sequence of {len(inner)} ({', '.join(map(_words, inner))})"
    if origin is not None and origin is not os.PathLike and issubclass(origin, (Sequence, tuple)):
        return f"a sequence of which each is {_words(inner[0])}"
    found = annotation if origin is None else origin
    return _WORDS.get(found) or f"a {getattr(found, '__name__', found)}"


def _shown(value: Any) -> str:
    """``value`` in a line."""
    text = repr(value)
    return text if len(text) < 80 and "\n" not in text else f"a {type(value).__name__}"
