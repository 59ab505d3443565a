"""Argument checks: annotations state the constraints, ``@checked`` checks a call against them.

    >>> @checked
    ... def scale(factor: Positive, unit: Literal["m", "km"] = "m") -> float:
    ...     return factor
    >>> scale(-2)
    Traceback (most recent call last):
    mtrl_imgrad.errors.ArgumentError: factor must be a finite number > 0, got -2

For constructors and entry points, not for what runs each step or update. A shape, a name from a registry, or one
argument beside another is checked by the function itself.

* Numbers may be Python's or NumPy's, never a bool or NaN; the function gets Python's. Integers have at most 64 bits.
* A list is accepted for a tuple and arrives as one; a string is no sequence.
* Protocols, type variables and names that exist only for the type checker accept anything.

Constraints are those of ``annotated_types``, as pydantic reads them.
"""

from __future__ import annotations

import builtins
import collections.abc
import difflib
import functools
import inspect
import math
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

import numpy as np
from annotated_types import DocInfo, Ge, Gt, Interval, Le, Lt, MinLen, Predicate, doc

from mtrl_imgrad.errors import ArgumentError, UnknownNameError

_FINITE = Predicate(math.isfinite)
Finite = Annotated[float, _FINITE]
Positive = Annotated[float, _FINITE, Gt(0)]
PositiveOrInf = Annotated[float, Gt(0)]
NonNegative = Annotated[float, _FINITE, Ge(0)]
Probability = Annotated[float, _FINITE, Interval(ge=0, le=1)]
Rate = Annotated[float, _FINITE, Interval(ge=0, lt=1)]
Fraction = Annotated[float, Interval(gt=0, lt=1)]
Count = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), doc("an integer in [0, 2^63)")]

_LIMIT = 2**63
"""NumPy and torch overflow on integers of more than 64 bits."""

Target = TypeVar("Target", bound=Callable[..., Any])
Entry = TypeVar("Entry")


def checked(target: Target) -> Target:
    """Make ``target``, a function or a class, raise `ArgumentError` where an argument is not what it should be.

    A class is changed in place, if it has a constructor of its own.
    """
    if not inspect.isclass(target):
        return _checked_function(target)
    if "__init__" in vars(target):
        type.__setattr__(target, "__init__", _checked_function(target.__init__))
    return target


def check(argument: str, value: Any, annotation: Any) -> Any:
    """``value`` as the annotation has it; for what stands in no signature, such as the entries of a dict.

    Args:
        argument: name for the message.
        value: what to check.
        annotation: a type or one of the constraints above.

    Raises:
        ArgumentError: if the value does not fit.
    """
    try:
        return _read(value, annotation)
    except _UnfitError:
        message = f"{argument} must be {_words(annotation)}, got {_shown(value)}{_hint(value, annotation)}"
    raise ArgumentError(message)


def look_up(kind: str, name: object, known: Mapping[str, Entry]) -> Entry:
    """The entry of a registry.

    Args:
        kind: what the name is of, for the message.
        name: to be looked up.
        known: the registry.

    Raises:
        UnknownNameError: if there is no such name; proposes the closest ones.
    """
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def _checked_function(function: Target) -> Target:
    signature = inspect.signature(function)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    annotations: dict[str, Any] = {}

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not annotations:  # read at the first call: they may name what is defined further down in the module
            names = _Names(function.__globals__)
            annotations.update(inspect.get_annotations(function, locals=names, eval_str=True))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:  # in Python's own words, which name the function
            owner = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{owner}() {error}") from None
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind not in variadic:
                bound.arguments[name] = check(name, value, annotations.get(name, Any))
        return function(*bound.args, **bound.kwargs)

    return wrapper  # type: ignore[return-value]


class _Names(dict[str, Any]):
    """The names in a module's annotations; `Any` for those that only exist for the type checker."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


class _UnfitError(Exception):
    """A value is not what an annotation says."""


def _require(fits: bool) -> None:
    if not fits:
        raise _UnfitError


def _read(value: Any, annotation: Any) -> Any:
    """``value``, its numbers Python's and its lists tuples where the annotation says so; raises `_UnfitError`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _read_union(value, inner)
    if origin is Annotated:
        read = _read(value, inner[0])
        _require(all(_holds(read, constraint) for constraint in inner[1:]))
        return read
    if origin is Literal:
        _require(any(type(value) is type(one) and value == one for one in inner))
        return value
    if origin is type:
        _require(isinstance(value, type) and (not isinstance(inner[0], type) or issubclass(value, inner[0])))
        return value
    if origin is not None:
        return _read_container(value, origin, inner)
    return _read_plain(value, annotation)


def _read_union(value: Any, inner: tuple[Any, ...]) -> Any:
    for one in inner:
        try:
            return _read(value, one)
        except _UnfitError:
            continue
    raise _UnfitError


def _read_container(value: Any, origin: Any, inner: tuple[Any, ...]) -> Any:
    if origin is collections.abc.Callable:
        _require(callable(value))
    elif origin is tuple:
        return _read_tuple(value, inner)
    elif issubclass(origin, Sequence):
        _require(isinstance(value, (origin, tuple)) and not isinstance(value, (str, bytes)))
        for one in value:
            _read(one, inner[0])
    elif issubclass(origin, Mapping):
        _require(isinstance(value, Mapping))
        for key, one in value.items():
            _read(key, inner[0])
            if not isinstance(one, float):  # what was measured may be NaN; what was asked for may not
                _read(one, inner[1])
    elif issubclass(origin, collections.abc.Iterable) and not issubclass(origin, os.PathLike):
        _require(isinstance(value, collections.abc.Iterable) and not isinstance(value, (str, bytes)))
    else:
        _require(isinstance(value, origin))
    return value


def _read_tuple(value: Any, inner: tuple[Any, ...]) -> Any:
    _require(isinstance(value, (tuple, list)))
    kinds = (inner[0],) * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
    _require(len(value) == len(kinds))
    read = tuple(map(_read, value, kinds))
    unchanged = isinstance(value, tuple) and all(old is new for old, new in zip(value, read, strict=True))
    return value if unchanged else read  # a named tuple stays one


def _read_plain(value: Any, annotation: Any) -> Any:
    if annotation is None:
        _require(value is None)
    elif annotation is bool:
        _require(isinstance(value, (bool, np.bool_)))
        return bool(value)
    elif annotation in (int, float):
        return _read_number(value, annotation)
    elif isinstance(annotation, type) and annotation is not Any and not getattr(annotation, "_is_protocol", False):
        _require(is_typeddict(annotation) or isinstance(value, annotation))
    return value


def _read_number(value: Any, kind: type[int] | type[float]) -> float:
    _require(isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool))
    try:
        number = kind(value)
    except OverflowError:  # an integer beyond the largest float
        raise _UnfitError from None
    _require(-_LIMIT <= number < _LIMIT if kind is int else not math.isnan(number))
    return number


def _holds(value: Any, constraint: Any) -> bool:
    match constraint:
        case Interval():
            return all(_holds(value, bound) for bound in constraint)
        case Gt():
            return bool(value > constraint.gt)
        case Ge():
            return bool(value >= constraint.ge)
        case Lt():
            return bool(value < constraint.lt)
        case Le():
            return bool(value <= constraint.le)
        case MinLen():
            return len(value) >= constraint.min_length
        case Predicate():
            return bool(constraint.func(value))
    return True  # a note for somebody else


# ---------------------------------------------------------------------------------------------------------- messages

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
        return _constrained_words(_words(inner[0]), inner[1:])
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(repr, inner))
    if origin is type:
        return f"a class of {getattr(inner[0], '__name__', inner[0])}"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a sequence of {len(inner)} ({', '.join(map(_words, inner))})"
    if origin is not None and origin is not os.PathLike and issubclass(origin, (Sequence, tuple)):
        return f"a sequence of {_plural(_words(inner[0]))}"
    plain = annotation if origin is None else origin
    return _WORDS.get(plain) or f"a {getattr(plain, '__name__', plain)}"


def _constrained_words(kind: str, constraints: tuple[Any, ...]) -> str:
    low = high = ""
    for constraint in constraints:
        if isinstance(constraint, DocInfo):
            return constraint.documentation
        if constraint is _FINITE:
            kind = kind.replace("a number", "a finite number")
        if isinstance(constraint, MinLen):
            kind = kind.replace("a sequence", "a non-empty sequence")
        for bound in constraint if isinstance(constraint, Interval) else (constraint,):
            match bound:
                case Gt():
                    low = f"({bound.gt}"
                case Ge():
                    low = f"[{bound.ge}"
                case Lt():
                    high = f"{bound.lt})"
                case Le():
                    high = f"{bound.le}]"
    if low and high:
        return f"{kind.replace('a number', 'a finite number')} in {low}, {high}"
    if low:
        return f"{kind} {'>' if low[0] == '(' else '>='} {low[1:]}"
    return f"{kind} {'<' if high[-1] == ')' else '<='} {high[:-1]}" if high else kind


def _plural(words: str) -> str:
    """``"a finite number > 0"`` as ``"finite numbers > 0"``."""
    noun = re.fullmatch(r"an? ((?:finite )?\w+)(.*)", words)
    if noun is None or " or " in words:
        return f"which each is {words}"
    return f"{noun[1]}s{noun[2]}"


def _hint(value: Any, annotation: Any) -> str:
    """The names that are close to a wrong one."""
    inner = get_args(annotation)
    names = [
        name
        for one in (inner if get_origin(annotation) in (Union, types.UnionType) else [annotation])
        if get_origin(one) is Literal
        for name in get_args(one)
        if isinstance(name, str)
    ]
    close = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    return f". Did you mean {close[0]!r}?" if close else ""


def _shown(value: Any) -> str:
    """``value`` in a line."""
    text = repr(value)
    return text if len(text) < 80 and "\n" not in text else f"a {type(value).__name__}"
